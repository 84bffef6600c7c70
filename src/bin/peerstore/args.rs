//! What can be said on the command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Shown by `--help`, and in the man page.
const MORE: &str = "\
Stores:
  redb:PATH                     the file of a RedbDatastore
  fs:FOLDER                     the folder of a FsDatastore, or of a js-libp2p node
  redis://HOST:PORT/DB?prefix=P a Redis or Valkey server, or a Redis Cluster, and the
                                node's prefix; in quotes, or a shell takes the ? for its
                                own (rediss:// with TLS, unix:// for a socket; valkey://
                                and valkeys:// are the same)
  env:NAME                      the URL that stands in this environment variable: keeps
                                passwords out of the list of processes

ls, show, stats, export and check write nothing to a store and never make one. They do not see a store that a running node \
holds (redb, fs): stop the node first.

Exit status:
  0  done
  1  failed: the message names the store, the key, and what to do
  2  the command line is not understood
  3  done, and problems were found: check found entries, import --keep-going skipped lines
  4  no such peer, or more than one that the text fits

Colours are used on a terminal only, and never with NO_COLOR. COLUMNS sets the width of tables there; elsewhere nothing is \
cut. What strangers chose is shown \
with control characters and those that turn the direction of text escaped.";

/// Looks at, moves and mends the peer stores of libp2p nodes.
#[derive(Debug, Parser)]
#[command(name = "peerstore", version, after_long_help = MORE, after_help = "`peerstore --help` explains stores and exit status.")]
#[command(max_term_width = 100, disable_help_subcommand = true)]
pub struct Args {
    /// Answers in JSON, errors and remarks too: one object, or one in each line where there can be many. docs/cli.md has the fields
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists peers
    ///
    /// As wide as the terminal; elsewhere nothing is cut. A peer is shown if it meets all conditions. Ids that are cut
    /// can be given to `show` and `rm` by the end that is shown.
    ///
    /// The whole store is loaded for it, as a node does: some 250 bytes of memory for each peer. Peers are then copied and
    /// shown a few at a time.
    Ls(Ls),
    /// Shows all that is known about one peer
    ///
    /// With each address's standing and history in words, and what stands in the datastore but counts no longer.
    Show(Show),
    /// Counts peers, and draws small histograms
    Stats(Stats),
    /// Writes all peers as JSON Lines, without loss
    ///
    /// One line for each peer, in the order of the datastore, also those that have expired. Foreign entries are left out (and
    /// counted on stderr); `migrate` copies them. Memory does not grow with the store.
    Export(Export),
    /// Takes in what `export` wrote
    ///
    /// Writes the books that a line has over those in the store, and leaves alone what a line does not mention. What is there
    /// already is not written again, so that an import can be repeated. A store that is not there is made.
    ///
    /// A line that cannot be taken ends it, with the number of the line and the reason (exit status 1); what came before it
    /// is in the store. With --keep-going such lines are skipped (exit status 3).
    Import(Import),
    /// Deletes peers from a store
    ///
    /// With everything that stands in the datastore about them, also what cannot be decoded. Asks first on a terminal.
    Rm(Rm),
    /// Copies all peers from one store to another
    ///
    /// Byte for byte, expired and undecodable entries too. Nothing is deleted. A run that broke off is repeated; what is
    /// there already is not written again. The target is made if it is not there.
    Migrate(Migrate),
    /// Finds entries that cannot be decoded, or are not of a peer store
    ///
    /// Names each key and the reason. Exit status 3 when there are some.
    Check(Check),
    /// Prints completions for a shell
    ///
    /// For example: peerstore completions bash > ~/.local/share/bash-completion/completions/peerstore
    Completions(Completions),
    /// Prints the man page, or the one of a command
    ///
    /// For example: peerstore man > ~/.local/share/man/man1/peerstore.1
    Man(Man),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Who was heard of last first
    LastSeen,
    /// The most promising first
    Confidence,
    /// The nearest first; peers whose latency is not known last
    Latency,
    /// In the order of the store: nothing is kept in memory for it
    None,
}

#[derive(Debug, Arguments)]
pub struct Ls {
    /// The store, as a URL
    pub store: String,
    #[command(flatten)]
    pub filter: Filter,
    /// In which order
    #[arg(long, value_enum, default_value = "last-seen")]
    pub sort: Sort,
    /// The nearest to this peer (or to any other key) first, by Kademlia's metric
    #[arg(long, value_name = "PEER|KEY", conflicts_with = "sort")]
    pub near: Option<String>,
    /// At most so many peers
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
    /// Without the first so many
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub offset: usize,
    /// Only the ids, whole, one in a line: for xargs
    #[arg(long, conflicts_with = "json")]
    pub ids: bool,
}

#[derive(Debug, Arguments)]
pub struct Filter {
    /// Speaks this protocol; can be repeated, all must be spoken
    #[arg(long, value_name = "NAME")]
    pub protocol: Vec<String>,
    /// The name of its software begins so: kubo/, js-libp2p/0.30. Capitals matter
    #[arg(long, value_name = "PREFIX")]
    pub agent: Option<String>,
    /// Has an address with this in it, as spelt in addresses: tcp, quic-v1, ws, p2p-circuit, ip6
    #[arg(long, value_name = "NAME")]
    pub transport: Vec<String>,
    /// Was heard of so short ago: 90s, 15m, 24h, 7d, 2w
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub seen_within: Option<Duration>,
    /// Has an address of at least this confidence, from 0 to 1
    #[arg(long, value_name = "C", value_parser = confidence)]
    pub min_confidence: Option<f64>,
    /// Has an address of the public internet
    #[arg(long)]
    pub public: bool,
    /// Has this tag; can be repeated
    #[arg(long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// Also peers and addresses that have expired (a node that starts deletes them). Loads the store twice
    #[arg(long)]
    pub expired: bool,
}

#[derive(Debug, Arguments)]
pub struct Show {
    /// The store, as a URL
    pub store: String,
    /// A peer id (base58, or a CID), or the beginning or the end of one
    pub peer: String,
}

#[derive(Debug, Arguments)]
pub struct Stats {
    /// The store, as a URL
    pub store: String,
    #[command(flatten)]
    pub filter: Filter,
    /// Lines of each list at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
}

#[derive(Debug, Arguments)]
pub struct Export {
    /// The store, as a URL
    pub store: String,
    /// Metadata too. Without it, agent and protocol versions are left out as well
    #[arg(long)]
    pub metadata: bool,
}

#[derive(Debug, Arguments)]
pub struct Import {
    /// The store, as a URL
    pub store: String,
    /// What `export` wrote; `-` is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Skips lines that cannot be taken, and goes on
    #[arg(long)]
    pub keep_going: bool,
}

#[derive(Debug, Arguments)]
pub struct Rm {
    /// The store, as a URL
    pub store: String,
    /// Peer ids (base58, or CIDs), or beginnings or ends of them that fit one peer each
    #[arg(required = true)]
    pub peers: Vec<String>,
    /// Does not ask
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Arguments)]
pub struct Migrate {
    /// The store to read, as a URL
    pub from: String,
    /// The store to write to, as a URL
    pub to: String,
    /// Leaves alone what has another value in the target
    #[arg(long)]
    pub keep_existing: bool,
    /// Leaves out foreign and undecodable entries
    #[arg(long)]
    pub only_readable: bool,
    /// All keys, not only those under /peers/: what else a js-libp2p node keeps in its folder
    #[arg(long)]
    pub everything: bool,
}

#[derive(Debug, Arguments)]
pub struct Check {
    /// The store, as a URL
    pub store: String,
}

#[derive(Debug, Arguments)]
pub struct Completions {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Debug, Arguments)]
pub struct Man {
    /// The command
    pub command: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; say a number and s, m, h, d or w, such as 24h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        'w' => 7 * 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = text
        .strip_suffix(unit)
        .and_then(|number| number.parse().ok())
        .ok_or_else(wrong)?;
    let seconds = number.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

fn confidence(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (0.0..=1.0).contains(number))
        .ok_or_else(|| format!("`{text}` is no number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2w"), Ok(Duration::from_secs(14 * 24 * 3_600)));
        for text in ["", "s", "5", "-1h", "1y", "99999999999999999999s", "é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
