//! Waiting for the steps of an example's story, each with a deadline and a name.

use std::{error::Error, time::Duration};

use futures::StreamExt;
use libp2p_peerstore::{Event, Subscription};
use tokio::time::timeout;

use crate::text::chain;

pub type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// How long one step may take. On an idle machine a whole story takes about a second.
const DEADLINE: Duration = Duration::from_secs(30);

/// Reads `events`, and passes each to `tell`, until `done` holds.
pub async fn until(
    step: &str,
    events: &mut Subscription,
    done: impl Fn() -> bool,
    mut tell: impl FnMut(Event),
) -> Result<()> {
    let wait = async {
        loop {
            let is_done = done();
            // The events of what `done` has just seen are in the queue.
            while let Some(event) = events.try_next() {
                tell(event);
            }
            if is_done {
                return Ok(());
            }
            tell(events.next().await.ok_or("the store was shut down")?);
        }
    };
    in_time(step, wait).await
}

/// Waits for one step, and says which one it was if it does not happen.
pub async fn in_time<T>(step: &str, wait: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(DEADLINE, wait).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(format!("step \"{step}\": {}", chain(&*error)).into()),
        Err(_) => Err(format!("step \"{step}\" did not happen within {DEADLINE:?}").into()),
    }
}
