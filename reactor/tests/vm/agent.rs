//! Talks to the program in the guest that runs commands for us, over the second serial port.
//! The protocol is written down in `scripts/guest/agent`.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The connection to the guest's agent; it lasts as long as QEMU does, over every reboot.
pub(crate) struct Agent {
    stream: BufReader<UnixStream>,
    last_id: u32,
}

/// What a command in the guest came to.
pub(crate) struct Output {
    /// The exit status of the shell that ran it.
    pub(crate) status: i32,
    /// Its standard output and standard error, as they came.
    pub(crate) text: String,
}

impl Agent {
    /// Connects to QEMU's end of the serial port.
    pub(crate) fn connect(path: &Path) -> io::Result<Agent> {
        let stream = BufReader::new(UnixStream::connect(path)?);
        Ok(Agent { stream, last_id: 0 })
    }

    /// Waits until the guest has come up; what it said before its reset is passed over.
    pub(crate) fn wait_until_ready(&mut self, limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        while !self.read_line(deadline)?.starts_with("ready ") {}
        Ok(())
    }

    /// Runs a shell script in the guest and waits for its end.
    pub(crate) fn run(&mut self, script: &str, limit: Duration) -> io::Result<Output> {
        let deadline = Instant::now() + limit;
        self.send(script)?;
        let line = self.read_line(deadline)?;
        let (id, status, length) =
            parse_done(&line).ok_or_else(|| unexpected(format!("the guest said {line:?}")))?;
        if id != self.last_id {
            return Err(unexpected(format!(
                "an answer to {id}, not to {}",
                self.last_id
            )));
        }
        let text = String::from_utf8_lossy(&self.read_bytes(length, deadline)?).into_owned();
        Ok(Output { status, text })
    }

    /// Starts a shell script whose end nobody will hear of, as one that ends the guest.
    pub(crate) fn send(&mut self, script: &str) -> io::Result<()> {
        self.last_id += 1;
        let request = format!("run {} {}\n{script}", self.last_id, script.len());
        self.stream.get_mut().write_all(request.as_bytes())
    }

    fn read_line(&mut self, deadline: Instant) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            self.wait_for_bytes(deadline)?;
            // Takes what is there, at most to the end of the line.
            let buffered = self.stream.buffer().len() as u64;
            self.stream
                .by_ref()
                .take(buffered)
                .read_until(b'\n', &mut line)?;
        }
        line.pop();
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn read_bytes(&mut self, length: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            self.wait_for_bytes(deadline)?;
            let buffered = self.stream.buffer().len().min(length - filled);
            filled += self.stream.read(&mut bytes[filled..filled + buffered])?;
        }
        Ok(bytes)
    }

    fn wait_for_bytes(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean "for ever".
        let left = left.max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(left))?;
        match self.stream.fill_buf() {
            Ok([]) => Err(unexpected("QEMU has gone".to_owned())),
            Ok(_) => Ok(()),
            // As when this process was stopped and goes on: whoever waits looks again.
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(io::Error::new(
                ErrorKind::TimedOut,
                "the guest does not answer",
            )),
            Err(error) => Err(error),
        }
    }
}

fn parse_done(line: &str) -> Option<(u32, i32, usize)> {
    let mut words = line.strip_prefix("done ")?.split(' ');
    Some((
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
    ))
}

fn unexpected(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
