//! Keys and values.

use super::{Outcome, Subject, delete, ensure, expect, expect_query, get, put, query};
use crate::datastore::{Batch, Datastore};

pub(super) async fn a_new_one_is_empty<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let (one, other) = (subject.make().await, subject.make().await);
    for datastore in [&one, &other] {
        expect_query(datastore, "", []).await?;
        expect_query(datastore, "/", []).await?;
    }
    put(&one, "/a", b"1").await?;
    expect(&other, "/a", None).await
}

pub(super) async fn an_absent_key_is_none<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    expect(&datastore, "/a", None).await?;
    delete(&datastore, "/a").await?;
    put(&datastore, "/a/b", b"1").await?;
    for key in ["/", "/a", "/a/", "/a/b/", "/a/b/c", "/a/bb", "/A/b"] {
        expect(&datastore, key, None).await?;
        delete(&datastore, key).await?;
    }
    expect_query(&datastore, "/", [("/a/b".to_owned(), b"1".to_vec())]).await
}

pub(super) async fn the_last_put_counts<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    put(&datastore, "/b", b"other").await?;
    for value in [&b"1"[..], b"a longer value", b"2", b"2", b""] {
        put(&datastore, "/a", value).await?;
        expect(&datastore, "/a", Some(value)).await?;
        let entries = [("/a", value), ("/b", b"other")];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_vec()));
        expect_query(&datastore, "/", entries).await?;
    }
    Ok(())
}

pub(super) async fn what_is_deleted_is_gone<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    for key in ["/a", "/a/b", "/ab", "/a/b/c"] {
        put(&datastore, key, b"1").await?;
    }
    for _ in 0..2 {
        delete(&datastore, "/a/b").await?;
        expect(&datastore, "/a/b", None).await?;
        let rest = ["/a", "/ab", "/a/b/c"].map(|key| (key.to_owned(), b"1".to_vec()));
        expect_query(&datastore, "/", rest).await?;
    }
    put(&datastore, "/a/b", b"2").await?;
    expect(&datastore, "/a/b", Some(b"2")).await?;
    for key in ["/a", "/a/b", "/ab", "/a/b/c"] {
        delete(&datastore, key).await?;
    }
    expect_query(&datastore, "", []).await
}

pub(super) async fn an_empty_value_is_a_value<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    for _ in 0..2 {
        put(&datastore, "/a", b"").await?;
        expect(&datastore, "/a", Some(b"")).await?;
        expect_query(&datastore, "/a", [("/a".to_owned(), Vec::new())]).await?;
        put(&datastore, "/a", b"1").await?;
    }
    Ok(())
}

pub(super) async fn values_are_bytes<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    let all: Vec<u8> = (0..=255).collect();
    let values = [
        &all[..],
        &[0],
        &[0, 0, 0],
        b"\n",
        b"\r\n",
        b" ",
        &[0xff, 0xfe],
        b"\xc3\x28 is not UTF-8",
        b"{}",
        b"null",
    ];
    let mut entries = Vec::new();
    for (n, value) in values.into_iter().enumerate() {
        let key = format!("/{n}");
        put(&datastore, &key, value).await?;
        expect(&datastore, &key, Some(value)).await?;
        entries.push((key, value.to_vec()));
    }
    expect_query(&datastore, "/", entries).await
}

pub(super) async fn large_values_are_kept<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    put(&datastore, "/large", &large).await?;
    for len in [255, 256, 4_095, 4_096, 65_535, 65_536, 1_048_577] {
        put(&datastore, &format!("/{len}"), &large[..len]).await?;
    }
    expect(&datastore, "/large", Some(&large)).await?;
    for len in [255, 256, 4_095, 4_096, 65_535, 65_536, 1_048_577] {
        expect(&datastore, &format!("/{len}"), Some(&large[..len])).await?;
    }
    expect_query(&datastore, "/la", [("/large".to_owned(), large)]).await?;
    put(&datastore, "/large", b"small").await?;
    expect(&datastore, "/large", Some(b"small")).await
}

/// Keys that something between a store and a disk may take for something else.
fn odd_keys() -> Vec<String> {
    let names = [
        " ",
        "  ",
        "a ",
        " a",
        "a",
        "A",
        "\0",
        "a\0",
        "\n",
        "\r\n",
        "\t",
        "\u{7f}",
        "\u{80}",
        ".",
        "..",
        "...",
        "a/..",
        "../a",
        "a/../b",
        "./a",
        "a/./b",
        "a/",
        "a//b",
        "a//",
        "/",
        "//",
        "/a",
        "b",
        "*",
        "?",
        "[a]",
        "{a}",
        "a{b}c",
        "}",
        "{",
        "\\",
        "a\\b",
        "%",
        "%2f",
        "%00",
        "_",
        "a_b",
        "'",
        "\"",
        "`",
        ";",
        "--",
        "$a",
        "#",
        "&",
        "=",
        "+",
        ":",
        "C:",
        "|",
        "<>",
        "~",
        "~a",
        "!",
        "@",
        ",",
        "^",
        "ключ",
        "κλειδί",
        "鍵",
        "💥",
        "\u{10ffff}",
        "é",
        "e\u{301}",
        "ß",
        "ss",
        "İ",
        "i",
        "\u{202e}abc",
        "\u{feff}",
        "a.data",
        ".data",
        "a.data/b",
        "con",
        "nul",
        ".hidden",
        "AgentVersion",
        "agentversion",
        "null",
        "0",
        "00",
        "-1",
        "true",
    ];
    let names = names.into_iter().map(|name| format!("/{name}"));
    let [.., metadata] = super::peer_keys(0);
    let below = names.clone().map(move |name| format!("{metadata}{name}"));
    names.chain(below).collect()
}

pub(super) async fn a_key_may_hold_any_character<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    for key in odd_keys() {
        put(&datastore, &key, key.as_bytes()).await?;
        expect(&datastore, &key, Some(key.as_bytes())).await?;
        let entry = (key.clone(), key.as_bytes().to_vec());
        for prefix in [&key, ""] {
            expect_query(&datastore, prefix, [entry.clone()]).await?;
        }
        delete(&datastore, &key).await?;
        expect(&datastore, &key, None).await?;
        expect_query(&datastore, "", []).await?;
    }
    Ok(())
}

pub(super) async fn similar_keys_are_apart<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    let keys = odd_keys();
    // In one batch and one by one.
    let mut batch = Batch::default();
    for key in keys.iter().step_by(2) {
        batch.put(key, key.as_bytes().to_vec());
    }
    super::commit(&datastore, batch).await?;
    for key in keys.iter().skip(1).step_by(2) {
        put(&datastore, key, key.as_bytes()).await?;
    }
    for key in &keys {
        expect(&datastore, key, Some(key.as_bytes())).await?;
    }
    let entry = |key: &String| (key.clone(), key.as_bytes().to_vec());
    expect_query(&datastore, "", keys.iter().map(entry)).await?;
    for prefix in keys.iter().step_by(7) {
        let expected = keys.iter().filter(|key| key.starts_with(prefix.as_str()));
        expect_query(&datastore, prefix, expected.map(entry)).await?;
    }
    for (n, key) in keys.iter().enumerate() {
        delete(&datastore, key).await?;
        ensure!(
            get(&datastore, key).await?.is_none(),
            "{key:?} is there after it was deleted"
        );
        let left = query(&datastore, "").await?.len();
        ensure!(
            left == keys.len() - n - 1,
            "deleting {key:?} deleted another key, too"
        );
    }
    Ok(())
}

pub(super) async fn long_keys_are_kept<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    let lengths = [
        100, 200, 240, 249, 250, 251, 254, 255, 256, 257, 400, 511, 512,
    ];
    let mut entries = Vec::new();
    for len in lengths {
        let parts = "a/".repeat(len / 2) + "b";
        let wide = "é".repeat(len / 2);
        for name in ["x".repeat(len), "x".repeat(len - 1) + "y", parts, wide] {
            let key: String = format!("/{name}").chars().take(len).collect();
            entries.push((key, name.into_bytes()));
        }
    }
    for (key, value) in &entries {
        put(&datastore, key, value).await?;
    }
    // The same key may have been made twice: what was put last counts.
    let entries: std::collections::BTreeMap<_, _> = entries.into_iter().collect();
    for (key, value) in &entries {
        expect(&datastore, key, Some(value)).await?;
    }
    expect_query(&datastore, "/", entries).await
}

pub(super) async fn the_short_calls_agree_with_the_others<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    let mut batch = Batch::default();
    batch.put("/a", b"1".to_vec());
    super::commit(&datastore, batch).await?;
    // `expect` compares `has` as well.
    expect(&datastore, "/a", Some(b"1")).await?;
    put(&datastore, "/a", b"2").await?;
    put(&datastore, "/b", b"2").await?;
    expect(&datastore, "/a", Some(b"2")).await?;
    delete(&datastore, "/a").await?;
    expect(&datastore, "/a", None).await?;
    let mut batch = Batch::default();
    batch.delete("/b");
    super::commit(&datastore, batch).await?;
    expect(&datastore, "/b", None).await?;
    expect_query(&datastore, "", []).await
}
