//! `peerstore migrate`: copies all peers from one store to another.

use libp2p_peerstore::{MigrationError, MigrationOptions, MigrationReport, migrate};
use serde_json::json;

use crate::{
    args::Migrate,
    failure::{Failure, Outcome},
    out::Out,
    progress::Progress,
    target::{Missing, Target},
    words,
};

pub async fn run(args: Migrate, out: &mut Out) -> Result<Outcome, Failure> {
    let (source, target) = (Target::named(&args.from)?, Target::named(&args.to)?);
    if source.is_same(&target) {
        return Err(Failure::usage(format!(
            "`{source}` and `{target}` are the same store"
        )));
    }
    // What cannot be read makes no store.
    let from = source.open_to_read().await?;
    let to = target.open_to_write(Missing::IsMade).await?;
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
            MigrationError::Commit { report, .. } => (&target, "cannot write to", report.written),
            MigrationError::Read { report, .. } => (&source, "cannot copy from", report.written),
            _ => return Failure::new("cannot copy").because(&error),
        };
        Failure::new(format!("{what} the store `{store}`"))
            .because(&error)
            .help(format!(
                "{written} entries are copied; see the cause, and run the same command again to go on"
            ))
    })?;
    closed.map_err(|error| Failure::of_store("cannot close the store", &target, &error))?;
    tell(&args, &source, &target, &report, out)?;
    Ok(Outcome::Done)
}

fn tell(
    args: &Migrate,
    source: &Target,
    target: &Target,
    report: &MigrationReport,
    out: &mut Out,
) -> Result<(), Failure> {
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
        out.line(&format!("{kept} kept as they are in {target}"))?;
    }
    let odd = report.foreign + report.undecodable;
    if odd > 0 {
        let odd = words::count(odd, "entry is", "entries are");
        let fate = match args.only_readable {
            true => "and left out",
            false => "and copied like the others",
        };
        out.note(&format!(
            "{odd} foreign or undecodable {fate}; `peerstore check {source}` names them"
        ))?;
    }
    Ok(())
}
