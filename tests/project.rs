//! What the documents say of the project is what its manifest says.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What cargo knows of this crate and of all that it depends on.
fn metadata() -> Value {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // What other systems need was never fetched here, and nothing is to be fetched now.
    let rustc = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let rustc = String::from_utf8(rustc).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", host.unwrap()])
        .args(["--all-features", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn this_crate(metadata: &Value) -> &Value {
    let root = &metadata["resolve"]["root"];
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().find(|one| one["id"] == *root).unwrap()
}

fn is_of_users(dependency: &Value) -> bool {
    dependency["kind"].as_str() != Some("dev")
}

/// The rows of the table below a heading: what stands in code in the first column, and the other columns.
fn table(document: &str, heading: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let (_, section) = document.split_once(heading).unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let row = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let code = cells[0].split('`').skip(1).step_by(2);
        let rest = cells[1..].iter().map(|cell| (*cell).to_owned());
        (code.map(str::to_owned).collect(), rest.collect())
    };
    rows.map(row).collect()
}

#[test]
fn the_readme_says_of_each_dependency_why_it_is_there_and_of_no_other() {
    let metadata = metadata();
    let dependencies = this_crate(&metadata)["dependencies"].as_array().unwrap();
    let used = dependencies.iter().filter(|one| is_of_users(one));
    let used: BTreeSet<String> = used
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect();

    let mut told = BTreeSet::new();
    for (names, rest) in table(&read("README.md"), "\n## Dependencies\n") {
        assert!(!rest[0].is_empty(), "{names:?}");
        for name in names {
            assert!(told.insert(name.clone()), "{name} is there twice");
        }
    }
    assert_eq!(told, used);
}

#[test]
fn readme_and_crate_documentation_list_every_feature_and_its_default() {
    let metadata = metadata();
    let features = this_crate(&metadata)["features"].as_object().unwrap();
    let default: BTreeSet<&str> = features["default"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    let there: BTreeMap<String, bool> = features
        .keys()
        .filter(|name| *name != "default")
        .map(|name| (name.clone(), default.contains(name.as_str())))
        .collect();

    let crate_docs: String = read("src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    for (document, heading) in [
        (read("README.md"), "\n## Features\n"),
        (crate_docs, "\n# Features\n"),
    ] {
        let rows = table(&document, heading).into_iter();
        let told = rows.flat_map(|(names, rest)| {
            let is_default = rest[0] == "yes";
            names
                .into_iter()
                .take(1)
                .map(move |name| (name, is_default))
        });
        assert_eq!(told.collect::<BTreeMap<_, _>>(), there, "{heading}");
    }
}

/// As far as crates say what they need, and for the versions in the lock file, which are those that were tried.
#[test]
fn no_dependency_needs_a_newer_rust_than_is_promised() {
    let metadata = metadata();
    let version = |text: &str| -> Vec<u64> {
        text.split('.')
            .take(2)
            .map(|part| part.parse().unwrap())
            .collect()
    };
    let ours = this_crate(&metadata)["rust_version"].as_str().unwrap();
    let readme = read("README.md");
    assert!(
        readme.contains(&format!("need Rust {ours} or later")),
        "the README names another one than {ours}"
    );

    // What users build, from the root on, without what only tests need.
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let node = |id: &Value| nodes.iter().find(|one| one["id"] == *id).unwrap();
    let mut waiting = vec![metadata["resolve"]["root"].clone()];
    let mut built = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !built.insert(id.to_string()) {
            continue;
        }
        for dependency in node(&id)["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(is_of_users) {
                waiting.push(dependency["pkg"].clone());
            }
        }
    }
    assert!(built.len() > 50, "{}", built.len());
    let packages = metadata["packages"].as_array().unwrap();
    let too_new = packages.iter().filter(|package| {
        let needs = package["rust_version"].as_str();
        built.contains(&package["id"].to_string())
            && needs.is_some_and(|needs| version(needs) > version(ours))
    });
    let too_new: Vec<_> = too_new
        .map(|one| (&one["name"], &one["rust_version"]))
        .collect();
    assert!(too_new.is_empty(), "{too_new:?}");
}

#[test]
fn each_example_is_in_the_readme_and_says_how_to_run_it() {
    let metadata = metadata();
    let readme = read("README.md");
    let targets = this_crate(&metadata)["targets"].as_array().unwrap();
    let examples = targets
        .iter()
        .filter(|target| target["kind"][0] == "example");
    for example in examples {
        let (name, path) = (
            example["name"].as_str().unwrap(),
            example["src_path"].as_str().unwrap(),
        );
        assert!(
            readme.contains(&format!("`{name}`")) || readme.contains(&format!("--example {name}")),
            "{name}"
        );
        let text = fs::read_to_string(path).unwrap();
        let header: String = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        assert!(
            header.contains("cargo run ") && header.contains(&format!("--example {name}")),
            "{name}"
        );
    }
}

#[test]
fn links_in_the_documents_lead_to_files() {
    let documents = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let documents = documents.map(|entry| format!("docs/{}", entry.unwrap().file_name().display()));
    let top = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ]
    .map(str::to_owned);
    for document in documents.filter(|name| name.ends_with(".md")).chain(top) {
        let text = read(&document);
        let folder = Path::new(&document).parent().unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap().split('#').next().unwrap();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(folder)
                .join(link);
            assert!(path.exists(), "{document} links to {link}");
        }
    }
}

/// `docs/public-api.txt` is compared with the code where the tool for it is there (`.ci/run public_api`).
#[test]
fn the_public_api_names_no_foreign_crate_but_those_that_users_have_anyway() {
    let ours = ["", "alloc", "core", "std", "libp2p_peerstore"];
    let listed = read("docs/public-api.txt");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let paths = listed
        .split(|c| !is_name(c))
        .filter_map(|word| word.split_once("::"));
    let foreign: BTreeSet<&str> = paths
        .map(|(root, _)| root)
        .filter(|root| !ours.contains(root) && !root.starts_with(char::is_uppercase))
        .collect();
    let features = [
        "libp2p_identify",
        "libp2p_kad",
        "libp2p_mdns",
        "libp2p_ping",
        "libp2p_rendezvous",
        "prometheus_client",
        "serde_core",
        "tokio",
    ];
    // The traits of streams and futures, those of a set of flags, and libp2p's own.
    let always = [
        "bitflags",
        "futures_core",
        "futures_util",
        "libp2p_core",
        "libp2p_identity",
        "libp2p_swarm",
        "multiaddr",
    ];
    assert_eq!(foreign, features.into_iter().chain(always).collect());
}
