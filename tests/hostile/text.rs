//! Text that a terminal would obey: it is escaped wherever a person may see it.

use std::{
    io,
    sync::{Arc, Mutex},
};

use libp2p::{identify, swarm::NetworkBehaviour};
use libp2p_peerstore::{Event, PROTOCOL_VERSION};
use tracing_subscriber::EnvFilter;

use crate::{Full, speaker::Speaker, swarm::*};

/// Clears a terminal, rings, rewrites a line, turns the direction of text, hides.
const EVIL: &str = "\u{1b}[2J\u{7}\r\u{9b}31m\u{202e}\u{2066}\u{200b}\u{feff}evil";
const EVIL_PROTOCOL: &str = "/\u{1b}[2J\u{7}\r\u{9b}31m\u{202e}\u{2066}\u{200b}\u{feff}evil";

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct Evil {
    identify: identify::Behaviour,
    speaker: Speaker,
}

/// Whether a terminal shows it as it stands. Lines may end.
fn is_harmless(text: &str) -> bool {
    text.split('\n').all(|line| {
        line.chars()
            .all(|c| matches!(c, '"' | '\'' | '\\') || c.escape_debug().eq([c]))
    })
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn control_and_bidirectional_characters_are_escaped_in_every_debug_form_and_in_the_log() {
    assert!(!is_harmless(EVIL) && is_harmless("/a/1.0 \"é\" \\u{1b}\n"));
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(EnvFilter::new("libp2p_peerstore=trace"))
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    // Too long by one, so that the log has something to say of it, and short enough.
    let config = libp2p_peerstore::Config::default()
        .with_max_protocols_per_peer(4.try_into().unwrap())
        .with_max_address_len(64.try_into().unwrap());
    let mut a: Node<Full> = Setup::with_config(config).observing();
    let mut b = Setup::default().build(|_, key| {
        let config = identify::Config::new(format!("/{EVIL}"), key.public());
        Evil {
            identify: identify::Behaviour::new(config.with_agent_version(EVIL.repeat(50))),
            speaker: Speaker::new(&[EVIL_PROTOCOL, "/a", "/b", "/c", "/d", "/e"]),
        }
    });
    let named: libp2p::Multiaddr = format!("/dns4/{EVIL}/tcp/1").parse().unwrap();
    b.swarm.add_external_address(named.clone());
    let too_long = format!("/dns4/{}/tcp/1", EVIL.repeat(4));
    b.swarm.add_external_address(too_long.parse().unwrap());
    let address = b.listen().await;
    connect(&mut a, &mut b, &address).await;
    let peer = b.id;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) > 0).await;

    let known = a.store.get(&peer).unwrap();
    // It is kept as it was told: a program may compare it.
    assert_eq!(known.agent_version(), Some(EVIL.repeat(50)));
    assert_eq!(
        known.metadata[PROTOCOL_VERSION],
        format!("/{EVIL}").into_bytes()
    );
    assert!(a.addresses(peer).contains(&named));
    assert!(a.speaks(peer, EVIL_PROTOCOL));

    let news = a.news();
    assert!(
        news.iter()
            .any(|event| matches!(event, Event::ProtocolsChanged { .. }))
    );
    let seen = [
        format!("{known:?}"),
        format!("{known:#?}"),
        format!("{news:?}"),
        format!("{:?}", a.store.subscribe()),
        format!("{:?}", a.store.watch(peer)),
        format!("{:?}", a.store),
        format!("{:?}", a.store.addresses().infos(&peer)),
        format!("{:?}", a.store.refusals()),
        format!("{:?}", a.swarm.behaviour().peer_store),
    ];
    for seen in seen {
        assert!(is_harmless(&seen), "{}", seen.escape_debug());
    }
    // The names are there, readable.
    assert!(format!("{known:?}").contains("/dns4/\\u{1b}[2J\\u{7}\\r"));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("refused to store"), "{log}");
    assert!(is_harmless(&log), "{}", log.escape_debug());
}
