//! Behaviours of the tests, and the macro that runs a rule in every order of their fields.

use std::{convert::Infallible, time::Duration};

use libp2p::{
    identify,
    identity::Keypair,
    kad, ping, rendezvous,
    swarm::{NetworkBehaviour, dummy},
};
use libp2p_peerstore::{Event, Observed, PeerStoreBehaviour};

pub type Kad = kad::Behaviour<kad::store::MemoryStore>;

/// How often identify repeats itself where a test counts its rounds.
const ROUND: Duration = Duration::from_millis(30);

/// What the behaviours of the tests yield, however they are composed.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Out {
    Store(Event),
    Identify(identify::Event),
    Kad(kad::Event),
    Ping(ping::Event),
    Client(rendezvous::client::Event),
    Server(rendezvous::server::Event),
}

macro_rules! yields {
    ($($variant:ident: $event:ty),*) => {
        $(
            impl From<$event> for Out {
                fn from(event: $event) -> Self {
                    Out::$variant(event)
                }
            }
        )*
    };
}

yields! {
    Store: Event, Identify: identify::Event, Kad: kad::Event, Ping: ping::Event,
    Client: rendezvous::client::Event, Server: rendezvous::server::Event
}

impl From<Infallible> for Out {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A behaviour of three fields, one of which is the store's.
pub trait Order<A, B>: NetworkBehaviour<ToSwarm = Out> {
    fn compose(peer_store: PeerStoreBehaviour, a: A, b: B) -> Self;
    fn a(&mut self) -> &mut A;
    fn b(&mut self) -> &mut B;
}

macro_rules! orders {
    ($($name:ident: $($field:ident: $type:ty),*;)*) => {
        $(
            #[derive(NetworkBehaviour)]
            #[behaviour(to_swarm = "Out")]
            pub struct $name<A, B> {
                $(pub $field: $type),*
            }

            impl<A, B> Order<A, B> for $name<A, B>
            where
                A: NetworkBehaviour,
                B: NetworkBehaviour,
                Out: From<A::ToSwarm> + From<B::ToSwarm>,
            {
                fn compose(peer_store: PeerStoreBehaviour, a: A, b: B) -> Self {
                    Self { peer_store, a, b }
                }
                fn a(&mut self) -> &mut A {
                    &mut self.a
                }
                fn b(&mut self) -> &mut B {
                    &mut self.b
                }
            }
        )*
    };
}

orders! {
    StoreFirst: peer_store: PeerStoreBehaviour, a: A, b: B;
    StoreBetween: a: A, peer_store: PeerStoreBehaviour, b: B;
    StoreLast: a: A, b: B, peer_store: PeerStoreBehaviour;
}

/// The composition of the crate's documentation: identify and Kademlia, both observed.
pub trait Observing: Order<Observed<identify::Behaviour>, Observed<Kad>> {}
impl<T: Order<Observed<identify::Behaviour>, Observed<Kad>>> Observing for T {}

/// Nothing but the store's behaviour.
pub trait Alone: Order<dummy::Behaviour, dummy::Behaviour> {}
impl<T: Order<dummy::Behaviour, dummy::Behaviour>> Alone for T {}

/// Runs each rule three times: with the store's behaviour before, between and after the others.
macro_rules! in_every_order {
    ($($rule:ident),* $(,)?) => {
        $crate::swarm::in_every_order!(@ store_first StoreFirst: $($rule),*);
        $crate::swarm::in_every_order!(@ store_between StoreBetween: $($rule),*);
        $crate::swarm::in_every_order!(@ store_last StoreLast: $($rule),*);
    };
    (@ $module:ident $order:ident: $($rule:ident),*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $rule() {
                    super::$rule::<$crate::swarm::$order<_, _>>().await;
                }
            )*
        }
    };
}
pub(crate) use in_every_order;

pub fn identify_config(key: &Keypair) -> identify::Config {
    identify::Config::new("/rule/1.0.0".to_owned(), key.public())
        .with_agent_version("rule-tester/7".to_owned())
        .with_push_listen_addr_updates(true)
}

pub fn identify(key: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify_config(key))
}

/// Identify that asks again at once, over and over.
pub fn restless_identify(key: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify_config(key).with_interval(ROUND))
}

/// A Kademlia server that starts nothing by itself.
pub fn kad_with(key: &Keypair, configure: impl FnOnce(&mut kad::Config)) -> Kad {
    let id = key.public().to_peer_id();
    let mut config = kad::Config::new(kad::PROTOCOL_NAME);
    config.set_periodic_bootstrap_interval(None);
    configure(&mut config);
    let mut kad = Kad::with_config(id, kad::store::MemoryStore::new(id), config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

pub fn kad(key: &Keypair) -> Kad {
    kad_with(key, |_| {})
}
