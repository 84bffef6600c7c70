//! What the command line says of itself, and what `docs/cli.md` says of it.

use std::{fs, path::Path};

use crate::support::*;

#[test]
fn help_and_the_man_page_have_stores_and_exit_statuses() {
    let help = run(&["--help"]).ok();
    let man = run(&["man"]).ok();
    for text in [
        "redb:PATH",
        "redis://HOST:PORT/DB?prefix=P",
        "NO_COLOR",
        "COLUMNS",
        "found problems",
    ]
    .map(|text| text.replace("found problems", "problems were found"))
    {
        assert!(help.contains(&text), "{text}");
        let plain = man.replace("\\-", "-");
        assert!(plain.contains(&text), "{text} in {man}");
    }
    for command in [
        "ls", "show", "stats", "export", "import", "rm", "migrate", "check",
    ] {
        assert!(help.contains(command) && man.contains(command), "{command}");
        assert!(run(&["man", command]).ok().starts_with(".ie"), "{command}");
        assert!(
            run(&[command, "--help"]).ok().contains("Usage: peerstore"),
            "{command}"
        );
    }
    run(&["man", "nothing"]).failed(2, &["nothing"]);
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).ok();
        assert!(script.contains("min-confidence"), "{shell}");
    }
}

/// Every `$ peerstore …` in the documentation was run, and said just this.
#[cfg(unix)]
#[test]
fn the_documentation_shows_what_is_really_said() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/cli.md")).unwrap();
    let mut examples = 0;
    for block in text.split("```console\n").skip(1) {
        let (block, _) = block.split_once("\n```").unwrap();
        for example in block.split("$ peerstore ").skip(1) {
            let (args, shown) = example.split_once('\n').unwrap_or((example, ""));
            let args: Vec<&str> = args.split_whitespace().collect();
            let ended = run_on_a_terminal(&args, "100");
            let said = [ended.out.as_str(), ended.err.as_str()].concat();
            assert_eq!(
                timeless(said.trim_end()),
                timeless(shown.trim_end()),
                "{args:?}"
            );
            examples += 1;
        }
    }
    assert!(examples >= 4, "{examples}");
}

/// A text in which a minute more or less makes no difference: `5s`, `5 s` and `1 min` are all the same.
fn timeless(text: &str) -> String {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut kept = String::new();
    let mut words = text.split_inclusive([' ', '\n']).peekable();
    while let Some(word) = words.next() {
        let next = words.peek().map(|next| next.trim_end());
        if is_number(word.trim_end()) && matches!(next, Some("s" | "min")) {
            // The unit is left.
            continue;
        }
        let bare = word.trim_end();
        let number = bare.strip_suffix(['s', 'm']);
        match bare {
            "s" | "min" => kept.push_str(&word.replace(bare, "moments")),
            _ if number.is_some_and(is_number) => kept.push_str(&word.replace(bare, "0s")),
            _ => kept.push_str(word),
        }
    }
    kept
}
