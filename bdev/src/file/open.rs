//! Finding, creating, locking and measuring the file of a disk.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use nix::sys::stat::{major, minor};

use crate::uring::{self, DirectAlignment};
use crate::{Error, Geometry};

use super::FileConfig;

/// What the kernel is assumed to want of O_DIRECT where nothing tells.
const DIRECT_BYTES_UNKNOWN: u32 = 4096;

/// How long a lock is waited for: that of a process that was killed lasts until the kernel has
/// ended its I/O.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// A file that is locked and fits the configuration.
pub(super) struct Opened {
    pub(super) file: fs::File,
    /// The canonical path.
    pub(super) path: PathBuf,
    pub(super) geometry: Geometry,
    /// Set if the file was switched to O_DIRECT.
    pub(super) direct: Option<DirectAlignment>,
    /// Whether requests may go through the page cache all the same.
    pub(super) cached: bool,
    /// Whether blocks can be deallocated and then read as zeroes.
    pub(super) punches: bool,
    /// Whether it was not there before.
    pub(super) created: bool,
}

/// Opens or creates the file.
pub(super) fn open(config: &FileConfig) -> Result<Opened, Error> {
    // Before anything is touched.
    config
        .size
        .map(|bytes| geometry(config, bytes))
        .transpose()?;
    match (fs::metadata(&config.path), config.size) {
        (Ok(metadata), _) => {
            check_kind(config, &metadata)?;
            let file = open_existing(config, &metadata)?;
            measure(config, file)
        }
        (Err(error), Some(bytes)) if error.kind() == ErrorKind::NotFound && !config.read_only => {
            create(config, bytes)
        }
        (Err(error), _) if error.kind() == ErrorKind::NotFound => Err(missing(config)),
        (Err(error), _) => Err(refused(config, "open", error)),
    }
}

/// The shape of a disk with this many bytes.
fn geometry(config: &FileConfig, bytes: u64) -> Result<Geometry, Error> {
    Geometry::for_size(&config.name, bytes, config.block_size).map_err(|error| match error {
        Error::Config { reason, .. } => {
            invalid(config, format!("{}: {reason}", config.path.display()))
        }
        other => other,
    })
}

fn missing(config: &FileConfig) -> Error {
    let path = config.path.display();
    let advice = match config.read_only {
        true => "and is not created for reading only",
        false => "and is created only with size=",
    };
    invalid(config, format!("{path} does not exist, {advice}"))
}

fn check_kind(config: &FileConfig, metadata: &fs::Metadata) -> Result<(), Error> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    let kind = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() => "a character device",
        _ => "something else",
    };
    let path = config.path.display();
    Err(invalid(
        config,
        format!("{path} is {kind}, not a file or a block device"),
    ))
}

fn open_existing(config: &FileConfig, metadata: &fs::Metadata) -> Result<fs::File, Error> {
    let exclusive = metadata.file_type().is_block_device() && !config.read_only;
    // O_EXCL without O_CREAT is for block devices: refused while mounted or opened so by others.
    // O_NONBLOCK keeps an open from waiting, should the path be a FIFO by now; `settle` ends it.
    let flags = OFlag::O_NONBLOCK
        | if exclusive {
            OFlag::O_EXCL
        } else {
            OFlag::empty()
        };
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(!config.read_only)
        .custom_flags(flags.bits());
    let file = patiently(config, || match options.open(&config.path) {
        Err(error) if exclusive && error.kind() == ErrorKind::ResourceBusy => Ok(None),
        Err(error) => Err(refused(config, "open", error)),
        Ok(file) => Ok(Some(file)),
    })?;
    let metadata = file
        .metadata()
        .map_err(|error| refused(config, "examine", error))?;
    check_kind(config, &metadata)?;
    lock(config, &file)?;
    Ok(file)
}

/// Makes the file anew. If that fails half-way it is removed again.
fn create(config: &FileConfig, bytes: u64) -> Result<Opened, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&config.path)
        .map_err(|error| refused(config, "create", error))?;
    let grown = lock(config, &file).and_then(|()| {
        let grown = file
            .set_len(bytes)
            .and_then(|()| make_durable(&file, &config.path));
        grown.map_err(|error| refused(config, "give the full size to", error))
    });
    let identity = file.try_clone();
    let opened = grown.and_then(|()| measure(config, file));
    match opened {
        Ok(opened) => Ok(Opened {
            created: true,
            ..opened
        }),
        Err(error) => {
            // The error that led here says more than one about the removal would.
            let _ = identity.and_then(|file| remove(&file, &config.path));
            Err(error)
        }
    }
}

/// Removes a file that we have made, unless the path leads to another by now.
pub(super) fn remove(file: &fs::File, path: &Path) -> io::Result<()> {
    let (ours, found) = (file.metadata()?, fs::symlink_metadata(path)?);
    if (ours.dev(), ours.ino()) == (found.dev(), found.ino()) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// A file that is new outlives the power only once its directory is written too.
fn make_durable(file: &fs::File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(directory)?.sync_all()
}

/// Locks the whole file for as long as this description of it is open: for us alone, or for
/// readers.
fn lock(config: &FileConfig, file: &fs::File) -> Result<(), Error> {
    let kind = if config.read_only {
        libc::F_RDLCK
    } else {
        libc::F_WRLCK
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    patiently(config, || match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(Some(())),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(errno) => Err(refused(config, "lock", errno.into())),
    })
}

/// Tries, as long as others have the file, for [`LOCK_PATIENCE`].
fn patiently<T>(
    config: &FileConfig,
    mut attempt: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        if let Some(had) = attempt()? {
            return Ok(had);
        }
        if Instant::now() >= deadline {
            return Err(in_use(config));
        }
        thread::sleep(LOCK_INTERVAL);
    }
}

/// Judges an open, locked file, and switches it to O_DIRECT.
fn measure(config: &FileConfig, mut file: fs::File) -> Result<Opened, Error> {
    let examine = |error| refused(config, "examine", error);
    let bytes = file.seek(SeekFrom::End(0)).map_err(examine)?;
    let shape = geometry(config, bytes)?;
    if let Some(size) = config.size.filter(|size| *size != bytes) {
        let path = config.path.display();
        let reason =
            format!("{path} has {bytes} bytes, not the {size} of size=, and stays as it is");
        return Err(invalid(config, reason));
    }
    let metadata = file.metadata().map_err(examine)?;
    let path = fs::canonicalize(&config.path).map_err(examine)?;
    let (direct, cached) = settle(config, &file, &metadata)?;
    Ok(Opened {
        direct,
        cached,
        created: false,
        punches: !config.read_only && punches(&file, &metadata, bytes),
        geometry: Geometry {
            optimal_io_bytes: optimal(config, &metadata),
            read_only: config.read_only,
            volatile_cache: true,
            ..shape
        },
        file,
        path,
    })
}

/// What request size the file system or device likes.
fn optimal(config: &FileConfig, metadata: &fs::Metadata) -> u32 {
    let block = config.block_size;
    let liked = u32::try_from(metadata.blksize()).unwrap_or(block);
    liked
        .checked_next_multiple_of(block)
        .unwrap_or(block)
        .max(block)
}

/// Decides about O_DIRECT, and sets the flags that requests need: the kernel would fail some of
/// them on a descriptor with O_NONBLOCK. Also whether requests may go through the page cache: a
/// file system that tells nothing of O_DIRECT may take the flag and not heed it.
fn settle(
    config: &FileConfig,
    file: &fs::File,
    metadata: &fs::Metadata,
) -> Result<(Option<DirectAlignment>, bool), Error> {
    let told = uring::direct_alignment(file.as_fd());
    let direct = match config.direct {
        Some(false) => Ok((None, true)),
        _ => {
            let wanted = told.unwrap_or_else(|| Some(assumed_alignment(metadata)));
            try_direct(config.block_size, file, wanted)
                .map(|alignment| (Some(alignment), told.is_none()))
        }
    };
    if !matches!(direct, Ok((Some(_), _))) {
        let plain = fcntl(file, FcntlArg::F_SETFL(OFlag::empty()));
        plain.map_err(|errno| refused(config, "set up", errno.into()))?;
    }
    direct.or_else(|reason| {
        let path = config.path.display();
        if config.direct == Some(true) {
            return Err(invalid(
                config,
                format!("{path} cannot have direct=on: {reason}"),
            ));
        }
        tracing::info!(
            "disk {}: {path} goes through the page cache: {reason}",
            config.name
        );
        Ok((None, true))
    })
}

fn try_direct(
    block_size: u32,
    file: &fs::File,
    wanted: Option<DirectAlignment>,
) -> Result<DirectAlignment, String> {
    let alignment = wanted.ok_or("its file system has no O_DIRECT")?;
    if alignment.offset > block_size {
        let needed = alignment.offset;
        return Err(format!(
            "O_DIRECT needs blocks of {needed} bytes there, not {block_size}"
        ));
    }
    fcntl(file, FcntlArg::F_SETFL(OFlag::O_DIRECT))
        .map_err(|errno| format!("O_DIRECT is refused there: {}", errno.desc()))?;
    Ok(alignment)
}

/// What O_DIRECT needs, on a kernel that does not tell: the blocks of the device below.
fn assumed_alignment(metadata: &fs::Metadata) -> DirectAlignment {
    let device = match metadata.file_type().is_block_device() {
        true => metadata.rdev(),
        false => metadata.dev(),
    };
    let block = queue_limit(device, "logical_block_size")
        .and_then(|bytes| u32::try_from(bytes).ok())
        .filter(|bytes| bytes.is_power_of_two())
        .unwrap_or(DIRECT_BYTES_UNKNOWN);
    DirectAlignment {
        memory: block,
        offset: block,
    }
}

/// Whether blocks can be deallocated such that they read as zeroes, found out without changing any.
fn punches(file: &fs::File, metadata: &fs::Metadata, bytes: u64) -> bool {
    if metadata.file_type().is_block_device() {
        return queue_limit(metadata.rdev(), "write_zeroes_max_bytes").is_some_and(|max| max > 0);
    }
    let Ok(end) = i64::try_from(bytes) else {
        return false;
    };
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, end, 4096).is_ok()
}

/// A limit of a block device's queue; a partition has that of its disk.
fn queue_limit(device: u64, name: &str) -> Option<u64> {
    let device = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    ["queue", "../queue"].iter().find_map(|queue| {
        let text = fs::read_to_string(format!("{device}/{queue}/{name}")).ok()?;
        text.trim().parse().ok()
    })
}

fn in_use(config: &FileConfig) -> Error {
    let path = config.path.display();
    invalid(
        config,
        format!("{path} is in use by another disk or process"),
    )
}

fn invalid(config: &FileConfig, reason: String) -> Error {
    let name = config.name.clone();
    Error::Config { name, reason }
}

fn refused(config: &FileConfig, action: &'static str, source: io::Error) -> Error {
    let name = config.name.clone();
    let path = config.path.clone();
    Error::File {
        name,
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::super::File;
    use super::super::tests::{config, in_memory, on_disk, open};
    use super::*;
    use crate::Bdev;

    fn sized(path: &Path, block_size: u32, size: Option<u64>) -> FileConfig {
        FileConfig {
            size,
            ..config(path, block_size)
        }
    }

    /// Opening fails with a message that has `wanted` and the path in it; unless a file that was
    /// closed is still locked for the reason that [`open`] knows, which passes.
    fn assert_refused(config: &FileConfig, wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let message = File::open(config.clone()).unwrap_err().to_string();
            let path = config.path.to_str().unwrap();
            if message.contains(wanted) && message.contains(path) {
                return;
            }
            let busy = message.contains("in use") && Instant::now() < deadline;
            assert!(busy, "{message:?} has no {wanted:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_missing_file_is_created_sparse_with_the_size_asked_for() {
        let folder = on_disk();
        let path = folder.path().join("disk");
        let disk = open(sized(&path, 512, Some(10 << 30)));
        assert_eq!(disk.geometry().blocks, 10 << 21);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.blocks()), (10 << 30, 0));
        assert_eq!(metadata.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_missing_file_without_a_size_is_an_error_that_names_it() {
        let folder = in_memory();
        let path = folder.path().join("disk");
        assert_refused(&sized(&path, 512, None), "only with size=");
        let mut reader = config(&path, 512);
        reader.read_only = true;
        assert_refused(&reader, "does not exist");
        assert!(!path.exists());
    }

    #[test]
    fn an_existing_file_keeps_its_size_and_its_data() {
        let folder = on_disk();
        let path = folder.path().join("disk");
        fs::write(&path, [7; 8192]).unwrap();
        for size in [4096, 12288, 1 << 20] {
            let wanted = format!("has 8192 bytes, not the {size} of size=");
            assert_refused(&sized(&path, 512, Some(size)), &wanted);
        }
        for size in [None, Some(8192)] {
            let disk = open(sized(&path, 512, size));
            assert_eq!(disk.geometry().blocks, 16);
        }
        assert_eq!(fs::read(&path).unwrap(), [7; 8192]);
    }

    #[test]
    fn sizes_that_are_not_whole_blocks_are_refused_with_nothing_touched() {
        let folder = in_memory();
        let path = folder.path().join("disk");
        for size in [0, 100, 4096 + 512, u64::MAX] {
            let wanted = format!("a size of {size} bytes is not possible");
            assert_refused(&sized(&path, 4096, Some(size)), &wanted);
        }
        for block_size in [0, 256, 513, 8192] {
            let wanted = format!("a block of {block_size} bytes is not possible");
            assert_refused(&config(&path, block_size), &wanted);
        }
        assert!(!path.exists());
        for size in [5000, 0] {
            fs::write(&path, vec![0; size]).unwrap();
            let wanted = format!("a size of {size} bytes is not possible");
            assert_refused(&sized(&path, 512, None), &wanted);
            assert_eq!(fs::metadata(&path).unwrap().len(), size as u64);
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_after_all_is_removed_again() {
        let folder = in_memory();
        let path = folder.path().join("disk");
        let mut direct = config(&path, 512);
        // Memory has no blocks as small as that.
        direct.direct = Some(true);
        assert_refused(&direct, "cannot have direct=on: O_DIRECT");
        assert!(!path.exists());
        fs::write(&path, [0; 512]).unwrap();
        assert_refused(
            &FileConfig {
                size: None,
                ..direct
            },
            "cannot have direct=on: O_DIRECT",
        );
        assert!(path.exists(), "it is not ours");
        let beyond = folder.path().join("no").join("disk");
        assert_refused(&config(&beyond, 512), "cannot create");
    }

    #[test]
    fn only_the_very_file_that_was_created_is_removed() {
        let folder = in_memory();
        let path = folder.path().join("disk");
        let config = config(&path, 512);
        let disk = open(config.clone());
        disk.remove_if_created().unwrap();
        assert!(!path.exists());
        let disk = open(config.clone());
        fs::remove_file(&path).unwrap();
        fs::write(&path, [7; 512]).unwrap();
        disk.remove_if_created().unwrap();
        let config = FileConfig {
            size: None,
            ..config
        };
        open(config).remove_if_created().unwrap();
        assert_eq!(fs::read(&path).unwrap(), [7; 512]);
    }

    #[test]
    fn what_is_no_file_is_refused_by_its_kind() {
        let folder = in_memory();
        let (fifo, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        let cases = [
            (folder.path(), "a directory"),
            (&fifo, "a FIFO"),
            (&socket, "a socket"),
            (Path::new("/dev/null"), "a character device"),
        ];
        for (path, kind) in cases {
            let mut config = config(path, 512);
            assert_refused(&config, kind);
            config.read_only = true;
            assert_refused(&config, kind);
        }
    }

    #[test]
    fn a_second_opener_is_told_that_the_file_is_in_use() {
        let folder = on_disk();
        let writer = config(&folder.path().join("disk"), 512);
        let mut reader = writer.clone();
        reader.read_only = true;
        let disk = open(writer.clone());
        assert_refused(&writer, "in use");
        assert_refused(&reader, "in use");
        drop(disk);
        let readers = [&reader, &reader].map(|config| open(config.clone()));
        assert_refused(&writer, "in use");
        drop(readers);
        open(writer);
    }

    #[test]
    fn a_lock_that_ends_soon_is_waited_for() {
        let folder = on_disk();
        let writer = config(&folder.path().join("disk"), 512);
        let disk = open(writer.clone());
        let end = thread::spawn(move || {
            thread::sleep(10 * LOCK_INTERVAL);
            drop(disk);
        });
        File::open(writer).unwrap();
        end.join().unwrap();
    }

    #[test]
    fn the_identity_follows_from_the_name_and_the_file_by_whatever_path() {
        let folder = on_disk();
        let (path, link) = (folder.path().join("disk"), folder.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let uuid = |name: &str, path: &Path| {
            let mut config = config(path, 512);
            name.clone_into(&mut config.name);
            open(config).uuid()
        };
        let first = uuid("a", &path);
        assert_eq!(first, uuid("a", &link));
        assert_ne!(first, uuid("b", &path));
        assert_ne!(first, uuid("a", &folder.path().join("other")));
        let mut given = config(&folder.path().join("third"), 512);
        given.uuid = Some(first);
        assert_eq!(open(given).uuid(), first);
    }
}
