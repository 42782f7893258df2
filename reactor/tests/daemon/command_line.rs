//! What cannot be served is refused before anything is touched: exit code 2, one sentence that
//! says what is wrong and where, nothing on stdout.

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::stat::Mode;

use crate::daemon::run;
use crate::stage::Stage;

const SOCKET: &str = "--controller socket=DIR/a.sock,ns=a";

/// Runs `bellwire serve` with these words; it has to refuse with a sentence that holds all of
/// `told`, and to leave the folder as it is.
#[track_caller]
fn refused_words(stage: &Stage, words: &[String], told: &[&str]) {
    let before = stage.snapshot();
    let mut all = vec!["serve".to_owned(), "--log".to_owned(), "error".to_owned()];
    all.push("--disable-cpumask-locks".to_owned());
    all.extend_from_slice(words);
    let ended = run(stage, &all);
    let said = format!("{words:?}: {}", ended.stderr);
    assert_eq!(ended.code, Some(2), "{said}");
    assert_eq!(ended.stdout, "", "{said}");
    assert!(ended.stderr.starts_with("bellwire: "), "{said}");
    assert_eq!(ended.stderr.lines().count(), 1, "{said}");
    for part in told.iter().map(|part| stage.expand(part)) {
        assert!(ended.stderr.contains(&part), "{part:?} is not in {said}");
    }
    assert_eq!(stage.snapshot(), before, "{said}");
}

/// The same for a command line in one piece.
#[track_caller]
fn refused(stage: &Stage, arguments: &str, told: &[&str]) {
    refused_words(stage, &stage.words(arguments), told);
}

#[test]
fn masks_that_are_none_are_refused_with_a_hint() {
    let stage = Stage::new();
    for (mask, told) in [
        ("8", "write 0x8 or [8]"),
        ("0", "write 0x0 or [0]"),
        ("0x", "names no core"),
        ("0x0", "names no core"),
        ("0xg", "'g' is not a hexadecimal digit"),
        ("[0", "no closing bracket"),
        ("[]", "is not a core"),
        ("0-", "\"\" is not a core"),
        ("1-0", "goes downwards"),
        ("0,", "is not a core"),
        ("a-b", "\"a\" is not a core"),
        ("[1024]", "is not a core from 0 to 1023"),
        ("[1023]", "core 1023 of -m [1023] does not exist"),
    ] {
        refused(
            &stage,
            &format!("-m {mask} --bdev null:a {SOCKET}"),
            &[told, mask],
        );
    }
    for (mask, told) in [
        ("8", "0x8 or [8]"),
        ("[1-0]", "downwards"),
        ("0x", "no core"),
    ] {
        let arguments = format!("--bdev null:a {SOCKET},cores={mask}");
        refused(&stage, &arguments, &["cores: ", mask, told]);
    }
    refused(
        &stage,
        &format!("--bdev null:a {SOCKET},cores=[1023]"),
        &["controller DIR/a.sock", "core 1023 of cores=[1023]"],
    );
}

#[test]
fn disks_that_cannot_be_are_refused() {
    let stage = Stage::new();
    let long = format!("null:{}", "x".repeat(64));
    for (bdev, told) in [
        ("null", "is not KIND:NAME"),
        ("floppy:a", "\"floppy\" is not a kind of disk"),
        ("null:", "\"\" is not a name"),
        ("null:a/b", "\"a/b\" is not a name"),
        (long.as_str(), "is not a name: 1 to 63"),
        ("null:a,size=1m,size=1m", "size is given twice"),
        ("null:a,block=1024,block=512", "block is given twice"),
        ("null:a,size=", "size has no value"),
        ("null:a,readonly=on", "there is no key \"readonly\" here"),
        ("null:a,size", "\"size\" is not key=value"),
        ("null:a,size=0", "a size of 0 bytes is not possible"),
        ("null:a,size=1000", "multiple of the block size of 512"),
        ("null:a,size=-1", "does not begin with a digit"),
        ("null:a,size=0x1000", "its unit is not k, m, g or t"),
        ("null:a,size=1kb", "its unit is not k, m, g or t"),
        ("null:a,size=99999999999999999999", "it is too large"),
        ("null:a,size=16777216t", "it is too large"),
        ("null:a,block=256", "a block of 256 bytes is not possible"),
        ("null:a,block=1000", "a block of 1000 bytes is not possible"),
        ("null:a,block=8k", "a block of 8192 bytes is not possible"),
        ("null:a,uuid=1", "uuid: "),
        ("malloc:a", "size= is missing"),
        ("file:a,size=1m", "path= is missing"),
        (
            "file:a,path=DIR/x,readonly=1",
            "\"1\" is neither on nor off",
        ),
        (
            "file:a,path=DIR/x,direct=yes",
            "\"yes\" is neither on nor off",
        ),
    ] {
        refused(&stage, &format!("--bdev {bdev} {SOCKET}"), &[told, bdev]);
    }
}

#[test]
fn controllers_that_cannot_be_are_refused() {
    let stage = Stage::new();
    for (keys, told) in [
        ("ns=a", "socket= is missing"),
        ("socket=DIR/a.sock", "ns= is missing"),
        (
            "socket=DIR/a.sock,ns=a,socket=DIR/b.sock",
            "socket is given twice",
        ),
        (
            "socket=DIR/a.sock,ns=a,serial=1,serial=1",
            "serial is given twice",
        ),
        (
            "socket=DIR/a.sock,ns=a,ns=b@1",
            "two namespaces have the identifier 1",
        ),
        (
            "socket=DIR/a.sock,ns=a@0",
            "\"0\" is not an identifier from 1 to 64",
        ),
        ("socket=DIR/a.sock,ns=a@65", "\"65\" is not an identifier"),
        ("socket=DIR/a.sock,ns=a@x", "\"x\" is not an identifier"),
        (
            "socket=DIR/a.sock,ns=a,queues=0",
            "queues: \"0\" is not a number from 1 to 128",
        ),
        ("socket=DIR/a.sock,ns=a,queues=129", "queues: \"129\""),
        (
            "socket=DIR/a.sock,ns=a,depth=1",
            "depth: \"1\" is not a number from 2 to 4096",
        ),
        ("socket=DIR/a.sock,ns=a,depth=4097", "depth: \"4097\""),
        (
            "socket=DIR/a.sock,ns=a,vectors=0",
            "vectors: \"0\" is not a number from 1 to 128",
        ),
        (
            "socket=DIR/a.sock,ns=a,intx=yes",
            "intx: \"yes\" is neither on nor off",
        ),
        (
            "socket=DIR/a.sock,ns=a,shared=1",
            "shared: \"1\" is neither on nor off",
        ),
        (
            "socket=DIR/a.sock,ns=a,mode=888",
            "mode: \"888\" is not a mode",
        ),
        (
            "socket=DIR/a.sock,ns=a,mode=1777",
            "mode: \"1777\" is not a mode",
        ),
        (
            "socket=DIR/a.sock,ns=a,colour=red",
            "there is no key \"colour\" here",
        ),
        (
            "socket=DIR/a.sock,ns=a,serial=123456789012345678901",
            "serial: ",
        ),
        ("socket=DIR/a.sock,ns=a,serial=\u{e9}", "serial: "),
    ] {
        let arguments = format!("--bdev null:a --bdev null:b --controller {keys}");
        refused(&stage, &arguments, &[told, keys]);
    }
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let stage = Stage::new();
    for (arguments, told) in [
        ("", ["nothing to serve", "--controller"]),
        ("--bdev null:a", ["nothing to serve", "--controller"]),
        (
            "--bdev null:b --controller socket=DIR/a.sock,ns=a",
            ["controller DIR/a.sock", "there is no --bdev a"],
        ),
        (
            "--bdev null:a --bdev null:a --controller socket=DIR/a.sock,ns=a",
            ["two --bdev", "name a"],
        ),
        (
            "--bdev null:a --controller socket=DIR/a.sock,ns=a,ns=a",
            ["controller DIR/a.sock", "bdev a is named twice"],
        ),
        (
            "--bdev null:a --bdev null:b --controller socket=DIR/a.sock,ns=a \
             --controller socket=DIR/a.sock,ns=b",
            ["two --controller", "socket DIR/a.sock"],
        ),
        (
            "--bdev null:a --bdev null:b --controller socket=DIR/a.sock,ns=a \
             --controller socket=DIR/./a.sock,ns=b",
            ["two --controller", "a.sock"],
        ),
        (
            "--bdev null:a --controller socket=DIR/a.sock,ns=a,shared=on \
             --controller socket=DIR/b.sock,ns=a",
            ["bdev a is used by 2", "DIR/b.sock does not say shared=on"],
        ),
        (
            "--bdev null:a --bdev null:b --controller socket=DIR/a.sock,ns=a,nqn=q \
             --controller socket=DIR/b.sock,ns=b,nqn=q",
            ["controllers DIR/a.sock and DIR/b.sock", "nqn q"],
        ),
    ] {
        refused(&stage, arguments, &told);
    }
}

#[test]
fn images_that_do_not_fit_are_refused_and_stay_as_they_are() {
    let stage = Stage::new();
    fs::write(stage.path("image"), vec![7; 1 << 20]).expect("an image");
    fs::write(stage.path("odd"), vec![7; 1000]).expect("an image");
    fs::create_dir(stage.path("folder")).expect("a folder");
    nix::unistd::mkfifo(&stage.path("fifo"), Mode::S_IRWXU).expect("a FIFO");
    for (keys, told) in [
        (
            "path=DIR/image,size=2m",
            "DIR/image has 1048576 bytes, not the 2097152",
        ),
        (
            "path=DIR/image,size=512k",
            "DIR/image has 1048576 bytes, not the 524288",
        ),
        (
            "path=DIR/odd",
            "DIR/odd: a size of 1000 bytes is not possible",
        ),
        (
            "path=DIR/missing",
            "DIR/missing does not exist, and is created only with size=",
        ),
        (
            "path=DIR/missing,size=1m,readonly=on",
            "DIR/missing does not exist",
        ),
        (
            "path=DIR/missing,size=1m,block=3",
            "a block of 3 bytes is not possible",
        ),
        (
            "path=DIR/nowhere/image,size=1m",
            "cannot create DIR/nowhere/image",
        ),
        ("path=DIR/folder,size=1m", "DIR/folder is a directory"),
        ("path=DIR/fifo", "DIR/fifo is a FIFO"),
        ("path=/dev/null", "/dev/null is a character device"),
    ] {
        refused(&stage, &format!("--bdev file:a,{keys} {SOCKET}"), &[told]);
    }
    let twice = "--bdev file:a,path=DIR/image --bdev file:b,path=DIR/./image";
    let in_use = ["disk b", "image is in use by another disk"];
    refused(&stage, &format!("{twice} {SOCKET},ns=b"), &in_use);
    // What was made for a disk goes again when another one cannot be had.
    let two = "--bdev file:a,path=DIR/new,size=1m --bdev malloc:b,size=1000t";
    refused(&stage, &format!("{two} {SOCKET},ns=b"), &["disk b"]);
}

#[test]
fn memory_that_cannot_be_had_is_refused() {
    let stage = Stage::new();
    for size in ["4t", "1000t", "8388607t"] {
        let arguments = format!("--bdev malloc:a,size={size} {SOCKET}");
        refused(&stage, &arguments, &["disk a", "bytes of memory"]);
    }
}

#[test]
fn socket_paths_that_are_taken_are_refused_and_stay_as_they_are() {
    let stage = Stage::new();
    fs::write(stage.path("plain"), "precious").expect("a file");
    fs::create_dir(stage.path("folder")).expect("a folder");
    std::os::unix::fs::symlink("plain", stage.path("link")).expect("a link");
    let served = UnixListener::bind(stage.path("served.sock")).expect("a socket");
    for (name, told) in [
        (
            "plain",
            "socket DIR/plain: there is something that is not a socket",
        ),
        (
            "folder",
            "socket DIR/folder: there is something that is not a socket",
        ),
        (
            "link",
            "socket DIR/link: there is something that is not a socket",
        ),
        (
            "served.sock",
            "socket DIR/served.sock: a living process serves it",
        ),
        ("nowhere/a.sock", "DIR/nowhere cannot be used"),
        ("plain/a.sock", "DIR/plain"),
        ("..", "there is no file name"),
    ] {
        let disk = format!("--bdev null:a --controller socket=DIR/{name},ns=a");
        refused(&stage, &disk, &[told]);
        // Nor is another socket left behind that came first.
        let two = format!("--bdev null:b --controller socket=DIR/first.sock,ns=b {disk}");
        refused(&stage, &two, &[told]);
    }
    let long = "x".repeat(108);
    let disk = format!("--bdev null:a --controller socket=DIR/{long},ns=a");
    refused(&stage, &disk, &["a socket's can have 107", &long]);
    assert_eq!(fs::read(stage.path("plain")).expect("a file"), b"precious");
    UnixStream::connect(stage.path("served.sock")).expect("it is still there");
    drop(served);
}

#[test]
fn permissions_that_cannot_be_are_refused() {
    let stage = Stage::new();
    let nobodys = "no group no-such-group";
    let no_group = "group no-such-group";
    for (more, told) in [
        (",group=no-such-group", no_group),
        (" --socket-group no-such-group", no_group),
        (" --socket-mode 888", "\"888\" is not a mode"),
        (" --socket-mode rw", "\"rw\" is not a mode"),
    ] {
        refused(&stage, &format!("--bdev null:a {SOCKET}{more}"), &[told]);
    }
    let told = ["socket DIR/a.sock", nobodys];
    refused(
        &stage,
        &format!("--bdev null:a {SOCKET},group=no-such-group"),
        &told,
    );
}

#[test]
fn arguments_that_mean_nothing_are_refused() {
    let stage = Stage::new();
    for (arguments, told) in [
        ("--bogus", "'--bogus'"),
        ("extra", "'extra'"),
        ("--bdev", "'--bdev"),
        ("-m [0] -m [1]", "'--cpumask"),
    ] {
        refused(&stage, arguments, &[told]);
    }
    let spaced = ["--bdev", "null:a b"].map(str::to_owned);
    refused_words(&stage, &spaced, &["\"a b\" is not a name"]);
    let socket = stage.words(SOCKET).remove(1);
    let model = ["--controller".to_owned(), format!("{socket},serial=a b")];
    refused_words(&stage, &model, &["serial: \"a b\" has a space"]);
    for (arguments, told) in [("sevre", "'sevre'"), ("serve --log loud", "'loud'")] {
        let ended = run(&stage, &stage.words(arguments));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn a_file_that_another_process_serves_is_refused() {
    let stage = Stage::new();
    let path = stage.path("image");
    let image = File::create(&path).expect("an image");
    image.set_len(1 << 20).expect("room");
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&image, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).expect("a lock");
    let told = ["disk a: DIR/image is in use by another disk or process"];
    refused(
        &stage,
        &format!("--bdev file:a,path=DIR/image {SOCKET}"),
        &told,
    );
    refused(
        &stage,
        &format!("--bdev file:a,path=DIR/image,readonly=on {SOCKET}"),
        &told,
    );
}
