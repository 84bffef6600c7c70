//! `peerstore man` and `peerstore completions`.

use clap::CommandFactory;
use clap_mangen::Man as Page;

use crate::{
    args::{Args, Completions, Man},
    failure::{Failure, Outcome},
    out::Out,
};

pub fn completions(args: Completions, out: &mut Out) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "peerstore", &mut script);
    out.bytes(&script)?;
    Ok(Outcome::Done)
}

pub fn page(args: Man, out: &mut Out) -> Result<Outcome, Failure> {
    let mut command = Args::command();
    // So that the page of a command says how it is called.
    command.build();
    if let Some(name) = &args.command {
        let found = command.find_subcommand(name).cloned();
        let found = found.ok_or_else(|| {
            Failure::usage(format!("there is no command `{name}`"))
                .help("`peerstore --help` lists them")
        })?;
        command = found
            .after_long_help("See peerstore(1) for how stores are named, and for the exit status.");
    }
    let mut page = Vec::new();
    Page::new(command)
        .render(&mut page)
        .map_err(Failure::of_output)?;
    out.bytes(&page)?;
    Ok(Outcome::Done)
}
