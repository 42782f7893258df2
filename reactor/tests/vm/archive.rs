//! Files for a guest beyond those of its image: an archive behind the image's own, which the kernel
//! unpacks as if the two were one. The format is cpio's "newc", as in the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A program: a regular file that everybody may run.
const PROGRAM_MODE: usize = 0o100_755;
/// What a field of the header holds at most, and with it a file's size.
const FIELD_MAX: usize = u32::MAX as usize;

/// Writes `image` to `to`, and behind it `programs`, which the guest finds in `usr/bin`.
pub(crate) fn image_with_programs(image: &Path, programs: &[PathBuf], to: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(to)?);
    io::copy(&mut File::open(image)?, &mut file)?;
    for program in programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("usr/bin/{name}");
        entry(&mut file, &name, PROGRAM_MODE, &fs::read(program)?)?;
    }
    entry(&mut file, "TRAILER!!!", 0, &[])?;
    file.flush()
}

fn entry(to: &mut impl Write, name: &str, mode: usize, data: &[u8]) -> io::Result<()> {
    assert!(data.len() <= FIELD_MAX, "{name} is too long for an archive");
    // Inode, mode, owner, group, links, time, size, four numbers of devices, the name's length and
    // a checksum, which this kind of archive does not have.
    let named = name.len() + 1;
    let fields = [0, mode, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, named, 0];
    let mut header = "070701".to_owned();
    header.extend(fields.map(|field| format!("{field:08x}")));
    write!(to, "{header}{name}\0")?;
    pad(to, header.len() + named)?;
    to.write_all(data)?;
    pad(to, data.len())
}

/// Header and data each end at a multiple of four.
fn pad(to: &mut impl Write, written: usize) -> io::Result<()> {
    to.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}
