//! Closing what clients sent: a file on a file system of a client's own waits for that client, for
//! ever if it likes.
//!
//! So each controller has a thread of its own, from the first file on, to close what its client
//! sent, and a count of what is not closed yet: a client whose files do not close is not listened
//! to beyond a limit, and takes neither time nor descriptors of the others.

use std::sync::mpsc::{self, Sender};

use crate::message::ControllerId;
use crate::unclosed::Unwanted;

/// What is closed is first in the queue, so a stack of its own needs no more than this, in bytes.
const STACK_BYTES: usize = 64 << 10;

/// The threads that close, one for each controller whose client has sent something.
pub struct Closers(Vec<Option<Sender<Unwanted>>>);

impl Closers {
    /// For so many controllers.
    pub fn new(controllers: usize) -> Closers {
        Closers(vec![None; controllers])
    }

    /// Closes a descriptor that the client of a controller sent, some time.
    pub fn close(&mut self, controller: ControllerId, unwanted: Unwanted) {
        let Some(place) = self.0.get_mut(controller.0) else {
            return;
        };
        if place.is_none() {
            *place = closer()
                .inspect_err(|error| tracing::error!(%error, "no thread to close files"))
                .ok();
        }
        match place {
            // The thread does not end.
            Some(closer) => _ = closer.send(unwanted),
            // Open, and counted, for ever: closing it here could stop everybody.
            None => std::mem::forget(unwanted),
        }
    }
}

fn closer() -> std::io::Result<Sender<Unwanted>> {
    let (sender, unwanted) = mpsc::channel::<Unwanted>();
    let thread = std::thread::Builder::new().name("closer".into());
    let thread = thread.stack_size(STACK_BYTES);
    thread.spawn(move || unwanted.into_iter().for_each(drop))?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use nix::libc::linger;
    use nix::sys::socket::setsockopt;
    use nix::sys::socket::sockopt::Linger;

    use super::*;
    use crate::unclosed::Unclosed;

    /// A socket whose close waits for the other end to take what was sent, and that end.
    fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let patience = linger {
            l_onoff: 1,
            l_linger: 600,
        };
        setsockopt(&near, Linger, &patience).unwrap();
        near.set_nonblocking(true).unwrap();
        while (&near).write(&[0; 1 << 16]).is_ok() {}
        near.set_nonblocking(false).unwrap();
        (near, far)
    }

    #[test]
    fn a_descriptor_that_does_not_close_holds_up_its_own_client_alone() {
        let mut closers = Closers::new(2);
        let [first, second] = [Unclosed::default(), Unclosed::default()];
        let (near, far) = lingering();
        let (mut ours, theirs) = nix::unistd::pipe()
            .map(|(r, w)| (std::fs::File::from(r), w))
            .unwrap();
        closers.close(ControllerId(0), first.count(near.into()));
        closers.close(ControllerId(1), second.count(theirs));
        // The end of the pipe: its other end was closed.
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        assert_eq!(first.waiting(), 1);
        drop(far);
        let deadline = Instant::now() + Duration::from_secs(60);
        while first.waiting() + second.waiting() != 0 {
            assert!(Instant::now() < deadline, "not closed");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
