//! Sockets: bound under a temporary name, listening, and only then renamed, so that a socket that
//! can be seen can be connected.
//!
//! A socket whose process is gone is replaced. One that is served, and anything that is not a
//! socket, is never touched. Everything goes by a descriptor of the folder, which is also locked
//! while a name in it is taken, so that two daemons cannot take the same one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{AtFlags, Flock, FlockArg, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat, umask};
use nix::unistd::{Gid, UnlinkatFlags, fchownat, unlinkat};

/// Most bytes of a socket's path: clients have to be able to name it.
const PATH_BYTES_MAX: usize = 107;

/// Who may connect.
#[derive(Clone, Debug)]
pub struct Permissions {
    /// Permission bits.
    pub mode: u32,
    /// Group, by name.
    pub group: Option<String>,
}

/// A socket that listens, under a name that nobody knows yet.
#[derive(Debug)]
pub struct BoundSocket {
    path: PathBuf,
    name: OsString,
    temporary: OsString,
    folder: File,
    listener: Option<OwnedFd>,
    published: Option<(u64, u64)>,
}

/// The path as it will be known: its folder without links.
///
/// # Errors
/// A path without a name, with a folder that does not exist, or too long for clients.
pub fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    let Some(name) = path.file_name() else {
        bail!("socket {shown}: there is no file name")
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let resolved = folder.canonicalize().with_context(|| {
        format!(
            "socket {shown}: its folder {} cannot be used",
            folder.display()
        )
    })?;
    let resolved = resolved.join(name);
    // The path is one word of the line that says that the socket is ready.
    let blank = |c: char| c.is_whitespace() || c.is_control();
    if resolved.to_string_lossy().contains(blank) {
        bail!("socket {resolved:?}: blanks and control characters cannot be in its path");
    }
    let bytes = resolved.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        bail!("socket {shown}: its path has {bytes} bytes, a socket's can have {PATH_BYTES_MAX}");
    }
    Ok(resolved)
}

impl BoundSocket {
    /// Binds a socket that will be `path`, which [`resolve`] made.
    ///
    /// # Errors
    /// The name is taken, or the system refuses; nothing is left behind then.
    pub fn bind(path: &Path, permissions: &Permissions) -> anyhow::Result<BoundSocket> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("socket {}: there is no file name", path.display());
        };
        let what = || format!("socket {}", path.display());
        let folder = File::open(parent).with_context(what)?;
        let temporary = OsString::from(format!(".bellwire-{}-{}", std::process::id(), unique()));
        // By the descriptor, since the temporary name may be longer than a socket's path can be.
        let via = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(&temporary);
        // Nobody else's until it has the permissions that were asked for.
        let usual = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(&via);
        umask(usual);
        let listener = bound.with_context(what)?;
        let mut socket = BoundSocket {
            path: path.to_owned(),
            name: name.to_owned(),
            temporary,
            folder,
            listener: None,
            published: None,
        };
        socket.permit(permissions).with_context(what)?;
        socket.check_name().with_context(what)?;
        socket.listener = Some(listener.into());
        Ok(socket)
    }

    fn permit(&self, permissions: &Permissions) -> anyhow::Result<()> {
        if let Some(group) = &permissions.group {
            let found = nix::unistd::Group::from_name(group)
                .with_context(|| format!("cannot look up group {group}"))?;
            let Some(found) = found else {
                bail!("there is no group {group}")
            };
            let gid: Option<Gid> = Some(found.gid);
            let (folder, flags) = (self.folder.as_fd(), AtFlags::AT_SYMLINK_NOFOLLOW);
            fchownat(folder, self.temporary.as_os_str(), None, gid, flags)
                .with_context(|| format!("cannot give it to group {group}"))?;
        }
        let mode = Mode::from_bits_truncate(permissions.mode);
        let follow = FchmodatFlags::FollowSymlink;
        fchmodat(
            self.folder.as_fd(),
            self.temporary.as_os_str(),
            mode,
            follow,
        )
        .with_context(|| format!("cannot set mode {:04o}", permissions.mode))
    }

    /// The listening socket, once.
    pub fn take_listener(&mut self) -> Option<OwnedFd> {
        self.listener.take()
    }

    /// Gives the socket its name.
    ///
    /// # Errors
    /// The name was taken meanwhile.
    pub fn publish(&mut self) -> anyhow::Result<()> {
        let what = || format!("socket {}", self.path.display());
        let lock = self.folder.try_clone().with_context(what)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(what)?;
        self.check_name().with_context(what)?;
        let folder = self.folder.as_fd();
        renameat(
            folder,
            self.temporary.as_os_str(),
            folder,
            self.name.as_os_str(),
        )
        .with_context(what)?;
        let published = self.stat(&self.name).with_context(what)?;
        self.published = published.map(|stat| (stat.st_dev, stat.st_ino));
        drop(lock);
        Ok(())
    }

    fn stat(&self, name: &OsStr) -> nix::Result<Option<FileStat>> {
        match fstatat(self.folder.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(nix::errno::Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the name is free, or that of a socket whose process is gone.
    fn check_name(&self) -> anyhow::Result<()> {
        let Some(stat) = self.stat(&self.name)? else {
            return Ok(());
        };
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
            bail!("there is something that is not a socket; it is left alone");
        }
        match UnixStream::connect(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            Ok(_) => bail!("a living process serves it already"),
            Err(error) => Err(error).context("cannot tell whether a living process serves it"),
        }
    }
}

impl Drop for BoundSocket {
    /// Removes the name, if it is still this socket's.
    fn drop(&mut self) {
        let name = match self.published {
            None => Some(&self.temporary),
            Some(ours) => {
                let stat = self.stat(&self.name).ok().flatten();
                let still = stat.is_some_and(|stat| (stat.st_dev, stat.st_ino) == ours);
                still.then_some(&self.name)
            }
        };
        if let Some(name) = name {
            let _ = unlinkat(
                self.folder.as_fd(),
                name.as_os_str(),
                UnlinkatFlags::NoRemoveDir,
            );
        }
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const PRIVATE: Permissions = Permissions {
        mode: 0o600,
        group: None,
    };

    fn names(folder: &Path) -> Vec<OsString> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    }

    #[test]
    fn a_socket_appears_when_it_can_be_connected_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = resolve(&folder.path().join("a.sock")).unwrap();
        let mut socket = BoundSocket::bind(&path, &PRIVATE).unwrap();
        assert!(!path.exists());
        socket.publish().unwrap();
        assert_eq!(names(folder.path()), ["a.sock"]);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = resolve(&folder.path().join("a.sock")).unwrap();
        let served = UnixListener::bind(&path).unwrap();
        let error = format!("{:#}", BoundSocket::bind(&path, &PRIVATE).unwrap_err());
        assert!(error.contains("a living process"), "{error}");
        drop(served);
        let mut socket = BoundSocket::bind(&path, &PRIVATE).unwrap();
        socket.publish().unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(folder.path()), ["a.sock"]);
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = resolve(&folder.path().join("precious")).unwrap();
        std::fs::write(&path, "data").unwrap();
        let error = format!("{:#}", BoundSocket::bind(&path, &PRIVATE).unwrap_err());
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        assert_eq!(names(folder.path()), ["precious"]);
    }

    #[test]
    fn a_name_that_another_has_taken_over_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = resolve(&folder.path().join("a.sock")).unwrap();
        let mut socket = BoundSocket::bind(&path, &PRIVATE).unwrap();
        socket.publish().unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        let long = format!("/tmp/{}", "x".repeat(120));
        for (path, reason) in [
            ("/", "no file name"),
            ("/nonexistent/a.sock", "/nonexistent"),
            (&long, "can have 107"),
        ] {
            let error = format!("{:#}", resolve(Path::new(path)).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
        let group = Some("no-such-group-here".to_owned());
        let folder = tempfile::tempdir().unwrap();
        let path = resolve(&folder.path().join("a.sock")).unwrap();
        let error = BoundSocket::bind(&path, &Permissions { mode: 0o600, group }).unwrap_err();
        assert!(
            format!("{error:#}").contains("there is no group"),
            "{error:#}"
        );
        assert!(names(folder.path()).is_empty());
    }
}
