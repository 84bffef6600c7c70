//! `peerstore`: the command line for people who operate nodes. `docs/cli.md` shows it at work.
//!
//! One module for each subcommand; [`target`] opens what a URL names, [`load`] makes a store of it that writes nothing,
//! [`out`] and [`table`] know the terminal, [`words`] says in words what the store knows.

mod args;
mod check;
mod discreet;
mod entries;
mod export;
mod failure;
mod import;
mod json;
mod load;
mod ls;
mod man;
mod migrate;
mod out;
mod progress;
mod rm;
mod show;
mod stats;
mod table;
mod target;
mod words;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use failure::{Failure, Outcome};
use out::Out;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return failure::misunderstood(&error),
    };
    let json = args.json;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(Failure::new("cannot start").because(&error)),
    };
    match ended {
        Ok(outcome) => outcome.code(),
        Err(failure) => failure.report(json),
    }
}

async fn run(args: Args) -> Result<Outcome, Failure> {
    let mut out = Out::new(args.json);
    let outcome = match args.command {
        Command::Ls(args) => ls::run(args, &mut out).await,
        Command::Show(args) => show::run(args, &mut out).await,
        Command::Stats(args) => stats::run(args, &mut out).await,
        Command::Export(args) => export::run(args, &mut out).await,
        Command::Import(args) => import::run(args, &mut out).await,
        Command::Rm(args) => rm::run(args, &mut out).await,
        Command::Migrate(args) => migrate::run(args, &mut out).await,
        Command::Check(args) => check::run(args, &mut out).await,
        Command::Completions(args) => man::completions(args, &mut out),
        Command::Man(args) => man::page(args, &mut out),
    };
    // What was found is shown, also when the rest could not be.
    let flushed = out.flush();
    let outcome = outcome?;
    Failure::unless_quiet(flushed)?;
    Ok(outcome)
}
