//! Where a key stands in the folder.
//!
//! A key of which every part can be a file name stands where js-libp2p puts it: `/a/b` in `a/b.data`. Any other key
//! stands in the deepest folder that its leading parts can name, in a file called after its SHA-256 hash, with the
//! key inside. Folders never end like either kind of file, so that no two keys can meet.

use sha2::{Digest, Sha256};

/// The datastore's own folder: the lock, the journal, and files that are being written.
pub(crate) const SERVICE: &str = ".libp2p-peerstore";

/// The end of a file with a value in it and nothing else.
const VALUE: &str = ".data";

/// The end of a file that begins with its key.
const KEYED: &str = ".keyed";

/// Bytes of the longest file name on all file systems in common use.
const MAX_NAME: usize = 255;

/// Bytes of the folders below the root, so that paths stay far below what systems allow (1,024 bytes on macOS).
const MAX_FOLDERS: usize = 512;

/// Names with capitals that js-libp2p and this crate use. No other spelling of them is a file name where case
/// does not count.
const KNOWN: [&str; 2] = [crate::AGENT_VERSION, crate::PROTOCOL_VERSION];

/// Names that Windows gives to devices, whatever follows behind a dot.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// Which names the file system keeps apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// All of them: names are bytes.
    Exact,
    /// Only small ASCII letters, digits and a few signs: capitals, or other forms of the same accent, may be the
    /// same name.
    Portable,
}

/// The file of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its folder in the form of a key: empty, or `/a/b`.
    pub(crate) folder: String,
    pub(crate) file: String,
    /// Whether the file begins with its key.
    pub(crate) keyed: bool,
}

impl Names {
    pub(crate) fn place(self, key: &str) -> Place {
        let (folder, rest) = self.folders(key);
        let keyed = !key.starts_with('/') || !self.is_file(rest);
        let file = match keyed {
            false => format!("{rest}{VALUE}"),
            true => {
                let hash = Sha256::digest(key.as_bytes());
                let hex = hash.iter().map(|byte| format!("{byte:02x}"));
                hex.collect::<String>() + KEYED
            }
        };
        Place {
            folder: folder.to_owned(),
            file,
            keyed,
        }
    }

    /// Splits a key, or the beginning of one, behind the leading parts that can be folders. All keys with the same
    /// beginning stand in that folder or below.
    pub(crate) fn folders(self, key: &str) -> (&str, &str) {
        let mut end = 0;
        while let Some(rest) = key[end..].strip_prefix('/')
            && let Some((part, _)) = rest.split_once('/')
            && self.is_folder(part, end == 0)
            && end + 1 + part.len() <= MAX_FOLDERS
        {
            end += 1 + part.len();
        }
        let rest = &key[end..];
        (&key[..end], rest.strip_prefix('/').unwrap_or(rest))
    }

    /// Whether a part of a key can be a folder.
    pub(crate) fn is_folder(self, part: &str, at_top: bool) -> bool {
        self.is_name(part)
            && part != "."
            && part != ".."
            && part.len() <= MAX_NAME
            && !part.ends_with(VALUE)
            && !part.ends_with(KEYED)
            && !(at_top && part == SERVICE)
    }

    /// Whether the last part of a key can be a file, with the ending behind it. `.` and `..` can.
    fn is_file(self, part: &str) -> bool {
        self.is_name(part) && part.len() + VALUE.len() <= MAX_NAME
    }

    fn is_name(self, part: &str) -> bool {
        if part.is_empty() || part.contains(['/', '\0']) {
            return false;
        }
        if self == Names::Exact || KNOWN.contains(&part) {
            return true;
        }
        let sign = |c: char| matches!(c, '-' | '_' | '.' | '+' | '=' | '@' | ',');
        let portable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || sign(c);
        // No `~`: Windows makes other names for files with it. No dot at the end: Windows drops it.
        part.chars().all(portable)
            && !part.ends_with('.')
            && !is_device(part)
            && !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(part))
    }
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name);
    let port = |prefix: &str| {
        let number = stem.strip_prefix(prefix);
        number.is_some_and(|number| number.len() == 1 && number.as_bytes()[0].is_ascii_digit())
    };
    DEVICES.contains(&stem) || port("com") || port("lpt")
}

impl Place {
    /// The place of a file that was found.
    pub(crate) fn found(folder: &str, file: String) -> Self {
        Self {
            folder: folder.to_owned(),
            keyed: kind(&file) == Kind::Keyed,
            file,
        }
    }
}

/// What a file's name says of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// The last part of the key.
    Value(&'a str),
    /// The key is in the file.
    Keyed,
    /// Not ours.
    Foreign,
}

pub(crate) fn kind(file: &str) -> Kind<'_> {
    match file.strip_suffix(VALUE) {
        Some("") => Kind::Foreign,
        Some(part) => Kind::Value(part),
        None if file.ends_with(KEYED) => Kind::Keyed,
        None => Kind::Foreign,
    }
}

/// What a file with its key inside begins with.
pub(crate) fn header(key: &str) -> Vec<u8> {
    let mut header = (key.len() as u64).to_be_bytes().to_vec();
    header.extend(key.as_bytes());
    header
}

/// Takes the content of such a file apart.
pub(crate) fn split(content: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = content.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*len)).ok()?)?;
    Some((std::str::from_utf8(key).ok()?, value))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const B32: &str = "bafzaajaiaejcaudtpxz3yxyx5xbsitgz4yq3ahocyq4zsbc32p27qq2pybko6ap5";

    fn place(names: Names, key: &str) -> (String, String) {
        let place = names.place(key);
        (place.folder, place.file)
    }

    /// What somebody could put behind `/peers/metadata/<b32>/`, or anywhere.
    fn hostile() -> Vec<String> {
        let parts = [
            "",
            ".",
            "..",
            "...",
            "a",
            "A",
            "b",
            " ",
            "a.",
            "a ",
            "~",
            "a~1",
            ".data",
            "a.data",
            "a.DATA",
            "a.data.data",
            "a.keyed",
            ".keyed",
            "con",
            "CON",
            "aux.x",
            "com1",
            "com1.data",
            "lpt9",
            "nul",
            ".git",
            ".libp2p-peerstore",
            ".LIBP2P-PEERSTORE",
            "lock",
            "journal",
            "tmp-0",
            "é",
            "e\u{301}",
            "É",
            "\0",
            "\n",
            "\\",
            "C:",
            "a:b",
            "a*?\"<>|",
            "%2e%2e",
            "%2f",
            "AgentVersion",
            "agentversion",
            "agentVersion",
            "ProtocolVersion",
            "protocolversion",
            "ﬀ",
            "ß",
            "ss",
            "SS",
            "İ",
            "i",
            "ſ",
            "s",
        ];
        let mut parts: Vec<String> = parts.map(str::to_owned).to_vec();
        parts.push("x".repeat(250));
        parts.push("x".repeat(251));
        parts.push("x".repeat(255));
        parts.push("x".repeat(256));
        parts.push("x/".repeat(300));
        parts.push("X".repeat(5_000));
        // The file of another key, as a part.
        parts.push(Names::Exact.place("/a//b").file);
        let mut keys = vec![String::new(), "0".into(), "a/b".into()];
        for first in &parts {
            for second in &parts {
                keys.push(format!("/{first}"));
                keys.push(format!("/{first}/{second}"));
                keys.push(format!("/{first}/{second}/c"));
                keys.push(format!("/peers/metadata/{B32}/{first}/{second}"));
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    /// How a file system that ignores case and the form of accents may see a path. Not all of Unicode's rules:
    /// portable names have no character to which they apply.
    fn folded(path: &str) -> String {
        path.to_lowercase()
            .replace("e\u{301}", "é")
            .replace("ß", "ss")
    }

    #[test]
    fn keys_of_js_libp2p_stand_where_it_puts_them() {
        for (key, folder, file) in [
            (
                format!("/peers/addrs/{B32}"),
                "/peers/addrs".into(),
                format!("{B32}.data"),
            ),
            (
                format!("/peers/metadata/{B32}/AgentVersion"),
                format!("/peers/metadata/{B32}"),
                "AgentVersion.data".into(),
            ),
            (
                format!("/peers/metadata/{B32}/app/note-32"),
                format!("/peers/metadata/{B32}/app"),
                "note-32.data".into(),
            ),
        ] {
            for names in [Names::Exact, Names::Portable] {
                assert_eq!(place(names, &key), (folder.clone(), file.clone()));
            }
        }
        let exact = |key| place(Names::Exact, key);
        for (key, folder, file) in [
            ("/a", "", "a.data"),
            ("/a/..", "/a", "...data"),
            ("/a/.", "/a", "..data"),
            ("/a/.hidden", "/a", ".hidden.data"),
            ("/.git/x", "/.git", "x.data"),
            ("/a/b.data", "/a", "b.data.data"),
            ("/a/50% é \\ :*", "/a", "50% é \\ :*.data"),
            ("/a/Note", "/a", "Note.data"),
        ] {
            assert_eq!(exact(key), (folder.to_owned(), file.to_owned()));
        }
    }

    #[test]
    fn keys_that_cannot_be_paths_stand_in_the_deepest_folder_that_can() {
        for (key, folder) in [
            ("", ""),
            ("0", ""),
            ("/", ""),
            ("//", ""),
            ("/a/", "/a"),
            ("/a//b", "/a"),
            ("/../a", ""),
            ("/a/../../../etc/passwd", "/a"),
            ("/a/./b", "/a"),
            ("/a.data/b", ""),
            ("/a.keyed/b", ""),
            ("/a/\0", "/a"),
            ("/.libp2p-peerstore/lock", ""),
        ] {
            let place = Names::Exact.place(key);
            assert_eq!(
                (place.folder.as_str(), place.keyed),
                (folder, true),
                "{key:?}"
            );
            assert_eq!(place.file.len(), 64 + KEYED.len());
        }
        // Below the top it is a name like any other.
        assert!(!Names::Exact.place("/a/.libp2p-peerstore/lock").keyed);
        for key in [
            "/a/Note",
            "/a/é",
            "/a/con",
            "/a/agentversion",
            "/a/x~1",
            "/a/b.",
            "/a/b c",
        ] {
            assert!(Names::Portable.place(key).keyed, "{key}");
            assert!(!Names::Exact.place(key).keyed, "{key}");
        }
    }

    #[test]
    fn no_two_keys_meet_and_none_leaves_the_folder() {
        let keys = hostile();
        assert!(keys.len() > 5_000);
        for names in [Names::Exact, Names::Portable] {
            let fold = |path: String| match names {
                Names::Exact => path,
                Names::Portable => folded(&path),
            };
            let (mut files, mut folders) = (HashMap::new(), HashMap::new());
            for key in &keys {
                let place = names.place(key);
                let parts: Vec<&str> = place.folder.split('/').skip(1).collect();
                for (depth, part) in parts.iter().enumerate() {
                    assert!(!matches!(*part, "" | "." | ".."), "{key:?}");
                    assert!(part.len() <= MAX_NAME && !part.contains('\0'), "{key:?}");
                    let above = format!("/{}", parts[..=depth].join("/"));
                    let first = folders
                        .entry(fold(above.clone()))
                        .or_insert_with(|| above.clone());
                    assert_eq!(*first, above, "two folders meet");
                }
                assert!(
                    !place.file.contains(['/', '\0']) && place.file.len() <= MAX_NAME,
                    "{key:?}"
                );
                assert!(place.folder.len() <= MAX_FOLDERS);
                assert!(!place.folder.starts_with(&format!("/{SERVICE}")), "{key:?}");
                let path = fold(format!("{}/{}", place.folder, place.file));
                assert_eq!(files.insert(path, key), None, "{key:?}");
            }
            let meeting = files.keys().find(|file| folders.contains_key(*file));
            assert_eq!(meeting, None, "a file and a folder meet");
        }
    }

    #[test]
    fn all_keys_with_a_prefix_stand_below_its_folder() {
        let keys = hostile();
        for names in [Names::Exact, Names::Portable] {
            for key in &keys {
                let place = names.place(key);
                for (end, _) in key.char_indices().take(150) {
                    let (folder, _) = names.folders(&key[..end]);
                    let below = place.folder.strip_prefix(folder);
                    assert!(below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
                }
            }
        }
    }

    #[test]
    fn the_key_inside_a_file_is_read_back() {
        for key in hostile() {
            for value in [&b""[..], b"value"] {
                let content = [header(&key).as_slice(), value].concat();
                assert_eq!(split(&content), Some((key.as_str(), value)));
                assert_eq!(split(&content[..content.len() - value.len() - 1]), None);
            }
        }
        assert_eq!(split(&[0xff; 20]), None);
    }
}
