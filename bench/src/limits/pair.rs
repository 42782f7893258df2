//! Two threads, each on a core of its own.

use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use super::error::Error;
use crate::cores::{Core, Cores, CoresError};

/// How often a thread looks in vain before it lets others run: long enough for whatever the other
/// thread does when both have their cores, and not for ever when they share one.
const LOOKS_MAX: u32 = 1 << 14;

/// Two cores: the client's and the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(super) client: Core,
    pub(super) server: Core,
}

impl Pair {
    /// The two that are named; unless any are, the first two that this process may use.
    pub(crate) fn new(named: Option<&Cores>) -> Result<Pair, Error> {
        let (cores, third_is_fine) = match named {
            Some(cores) => (cores.clone(), false),
            None => (Cores::inherited()?, true),
        };
        // Cores take turns: with fewer than three, the third job is at the first core again.
        let [client, server, third] = [0, 1, 2].map(|job| cores.of_job(job));
        let two = client != server && (third_is_fine || third == client);
        match named {
            _ if two => {}
            Some(cores) => return Err(Error::NotTwo(cores.to_string())),
            None => return Err(Error::OneCoreAllowed(cores.to_string())),
        }
        if named.is_some() {
            cores.check()?;
        }
        Ok(Pair { client, server })
    }

    /// These two.
    pub(crate) fn of(client: Core, server: Core) -> Result<Pair, Error> {
        match client == server {
            true => Err(Error::OneCore(client.0)),
            false => Ok(Pair { client, server }),
        }
    }

    /// Runs a thread on each core, and begins neither unless both are where they belong.
    pub(super) fn run<C: Send, S: Send>(
        self,
        client: impl FnOnce() -> C + Send,
        server: impl FnOnce() -> S + Send,
    ) -> Result<(C, S), Error> {
        let place = Place {
            together: Barrier::new(2),
            refused: Mutex::new(None),
        };
        let both = thread::scope(|scope| {
            let server = scope.spawn(|| place.take(self.server).then(server));
            let client = scope.spawn(|| place.take(self.client).then(client));
            // A thread that panics has been told of already.
            (client.join().ok().flatten(), server.join().ok().flatten())
        });
        let refused = place.refused.into_inner();
        match (refused.unwrap_or_else(PoisonError::into_inner), both) {
            (Some(refused), _) => Err(refused.into()),
            (None, (Some(client), Some(server))) => Ok((client, server)),
            (None, _) => Err(Error::Ended),
        }
    }

    /// Two cores, or one twice on a machine that has no more.
    #[cfg(test)]
    pub(super) fn anywhere() -> Pair {
        let cores = Cores::inherited().expect("cores");
        Pair {
            client: cores.of_job(0),
            server: cores.of_job(1),
        }
    }
}

/// Where two threads wait for each other.
struct Place {
    together: Barrier,
    refused: Mutex<Option<CoresError>>,
}

impl Place {
    /// Moves the calling thread to its core. False if it, or the other thread, cannot be where it
    /// belongs.
    fn take(&self, core: Core) -> bool {
        let refused = || self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(errno) = core.pin() {
            let core = core.0;
            *refused() = Some(CoresError::NotAllowed { core, errno });
        }
        self.together.wait();
        refused().is_none()
    }
}

/// How often a thread has looked in vain.
#[derive(Default)]
pub(super) struct Looks(u32);

impl Looks {
    /// Another one. True now and then: time for what is not to be done at every look.
    #[inline]
    pub(super) fn vain(&mut self) -> bool {
        self.0 += 1;
        if self.0 < LOOKS_MAX {
            return false;
        }
        self.0 = 0;
        thread::yield_now();
        true
    }

    /// Not in vain.
    #[inline]
    pub(super) fn found(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::CpuSet;

    use super::*;

    fn pair(text: &str) -> Result<Pair, String> {
        let cores: Cores = text.parse().expect("cores");
        Pair::new(Some(&cores)).map_err(|error| error.to_string())
    }

    #[test]
    fn anything_but_two_cores_is_refused() {
        for text in ["[0]", "[0-2]", "0xf0"] {
            let refused = pair(text).expect_err(text);
            assert!(refused.contains("does not name two"), "{refused}");
        }
        let last = CpuSet::count() - 1;
        let refused = pair(&format!("{},{last}", last - 1)).expect_err("no such cores");
        assert!(refused.contains("cannot run on core"), "{refused}");
    }

    #[test]
    fn the_default_is_the_first_two_cores_or_names_the_only_one() {
        let only_one = thread::spawn(|| {
            Pair::anywhere().server.pin().expect("pinned");
            Pair::new(None).expect_err("one core").to_string()
        });
        let only = Pair::anywhere().server.0;
        let expected = format!("this process may use [{only}] only");
        assert!(only_one.join().expect("a thread").contains(&expected));
        let allowed = Pair::anywhere();
        if allowed.client != allowed.server {
            assert_eq!(Pair::new(None).expect("two cores"), allowed);
        }
    }

    #[test]
    fn a_core_and_itself_are_no_pair() {
        let [here, there] = [Core(0), Core(1)];
        let refused = Pair::of(here, here).expect_err("one core").to_string();
        assert!(refused.contains("core 0"), "{refused}");
        assert!(Pair::of(here, there).is_ok());
    }

    #[test]
    fn each_thread_is_on_its_core() {
        let pair = Pair::anywhere();
        let here = || Cores::inherited().expect("cores").to_string();
        let (client, server) = pair.run(here, here).expect("both");
        assert_eq!(client, format!("[{}]", pair.client.0));
        assert_eq!(server, format!("[{}]", pair.server.0));
    }

    #[test]
    fn neither_begins_if_one_cannot_be_where_it_belongs() {
        let server = Core(CpuSet::count() - 1);
        let pair = Pair {
            server,
            ..Pair::anywhere()
        };
        let begun = || unreachable!("begun");
        let refused = pair.run(begun, begun).expect_err("no such core");
        assert!(
            matches!(refused, Error::Cores(CoresError::NotAllowed { core, .. })
            if core == server.0)
        );
    }
}
