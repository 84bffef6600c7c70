//! `peerstore migrate`: copies all peers from one store to another.

use libp2p_peerstore::{MigrationError, MigrationOptions, MigrationReport, migrate};
use serde_json::json;

use crate::{
    args::Migrate,
    failure::{Failure, Outcome},
    out::Out,
    progress::Progress,
    target::Missing,
    words,
};

pub async fn run(args: Migrate, out: &mut Out) -> Result<Outcome, Failure> {
    if args.from.is_same(&args.to) {
        return Err(Failure::usage(format!(
            "`{}` and `{}` are the same store",
            args.from, args.to
        )));
    }
    // What cannot be read makes no store.
    let from = args.from.open_to_read().await?;
    let to = args.to.open_to_write(Missing::IsMade).await?;
    let mut options = MigrationOptions::default()
        .with_keep_existing(args.keep_existing)
        .with_only_readable(args.only_readable);
    if args.everything {
        options = options.with_prefix("");
    }
    let progress = Progress::counting("copying", "entries");
    let copied = migrate(&*from, &*to, &options, |so_far| {
        progress.set(so_far.entries as u64);
    })
    .await;
    drop(progress);
    let _ = from.close().await;
    let closed = to.close().await;
    let report = copied.map_err(|error| {
        let (store, what, written) = match &error {
            MigrationError::Commit { report, .. } => (&args.to, "cannot write to", report.written),
            MigrationError::Read { report, .. } => (&args.from, "cannot copy from", report.written),
            _ => return Failure::new("cannot copy").because(&error),
        };
        Failure::new(format!("{what} the store `{store}`"))
            .because(&error)
            .help(format!(
                "{written} entries are copied; see the cause, and run the same command again to go on"
            ))
    })?;
    closed.map_err(|error| Failure::of_store("cannot close the store", &args.to, &error))?;
    tell(&args, &report, out)?;
    Ok(Outcome::Done)
}

fn tell(args: &Migrate, report: &MigrationReport, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.json(&json!({
            "entries": report.entries,
            "bytes": report.bytes,
            "peers": report.peers,
            "written": report.written,
            "unchanged": report.unchanged,
            "kept": report.kept,
            "leftOut": report.left_out,
            "foreign": report.foreign,
            "undecodable": report.undecodable,
        }));
    }
    let MigrationReport {
        entries,
        peers,
        written,
        unchanged,
        ..
    } = report;
    out.line(&format!(
        "{entries} entries of {peers} peers: {written} written, {unchanged} were there already"
    ))?;
    if report.kept > 0 {
        let kept = words::count(report.kept, "entry was", "entries were");
        out.line(&format!("{kept} kept as they are in {}", args.to))?;
    }
    let odd = report.foreign + report.undecodable;
    if odd > 0 {
        let odd = words::count(odd, "entry is", "entries are");
        let fate = match args.only_readable {
            true => "and left out",
            false => "and copied like the others",
        };
        let from = &args.from;
        out.note(&format!(
            "{odd} foreign or undecodable {fate}; `peerstore check {from}` names them"
        ))?;
    }
    Ok(())
}
