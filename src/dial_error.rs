//! Whose fault a failed attempt to dial is.

use std::{error::Error, io};

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// This machine's: no route, no descriptors, no permission. It says nothing about the address.
    Ours,
    /// Somebody at the address refused.
    Theirs,
    /// Nobody answered in time, or not in the right way: the address, or the network.
    Unknown,
}

/// Process and system limits of open files; they have no `ErrorKind` of their own.
const OUT_OF_DESCRIPTORS: [i32; 2] = [23, 24];

/// Looks for what the system said below all that transports wrapped round it.
pub(crate) fn whose(error: &io::Error) -> Whose {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        let found = match io {
            Some(io) => whose_is(io),
            // Transports that are combined hide the error itself (`Either` is no step of the chain), not its text.
            None => os_error(&error.to_string()).map_or(Whose::Unknown, |io| whose_is(&io)),
        };
        if found != Whose::Unknown {
            return found;
        }
        cause = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    Whose::Unknown
}

/// The system's error in a text like `Connection refused (os error 111)`.
fn os_error(text: &str) -> Option<io::Error> {
    let (_, code) = text.rsplit_once("(os error ")?;
    let (code, _) = code.split_once(')')?;
    Some(io::Error::from_raw_os_error(code.parse().ok()?))
}

fn whose_is(error: &io::Error) -> Whose {
    use io::ErrorKind::{
        AddrInUse, AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown,
        NetworkUnreachable, OutOfMemory, PermissionDenied, Unsupported,
    };
    match error.kind() {
        ConnectionRefused => Whose::Theirs,
        AddrInUse | AddrNotAvailable | HostUnreachable | NetworkDown | NetworkUnreachable
        | OutOfMemory | PermissionDenied | Unsupported => Whose::Ours,
        _ if error
            .raw_os_error()
            .is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code)) =>
        {
            Whose::Ours
        }
        _ => Whose::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_word_is_found_below_all_wrapping() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let unreachable = || io::Error::from_raw_os_error(101);
        assert_eq!(whose(&refused()), Whose::Theirs);
        assert_eq!(
            whose(&io::Error::other(io::Error::other(refused()))),
            Whose::Theirs
        );
        assert_eq!(whose(&io::Error::other(unreachable())), Whose::Ours);
        assert_eq!(whose(&io::Error::from_raw_os_error(24)), Whose::Ours);
        let hidden = io::Error::from_raw_os_error(111).to_string();
        assert_eq!(whose(&io::Error::other(hidden)), Whose::Theirs);
        assert_eq!(whose(&io::Error::other("handshake failed")), Whose::Unknown);
        assert_eq!(whose(&io::ErrorKind::TimedOut.into()), Whose::Unknown);
    }
}
