//! From the first `ready` line to the last exit code.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nvme::spec::{NvmOpcode, Status};

use crate::daemon::{Daemon, Ended, run};
use crate::host::Host;
use crate::stage::Stage;

const ONE: &str = "--bdev malloc:a,size=1m --controller socket=DIR/a.sock,ns=a";

fn mode(path: &Path) -> u32 {
    path.metadata().expect("a socket").mode() & 0o7777
}

#[test]
fn stdout_holds_one_ready_line_for_each_controller_and_nothing_else() {
    let stage = Stage::new();
    let arguments = "--log debug --bdev malloc:a,size=1m --bdev null:b \
                     --controller socket=DIR/a.sock,ns=a,serial=S-1,nqn=nqn.2014-08.org:a \
                     --controller socket=DIR/./b.sock,ns=b";
    let daemon = Daemon::serve(&stage, arguments);
    let Ended { stdout, stderr, .. } = {
        drop(Host::connect(&stage.path("b.sock")));
        daemon.signal("TERM");
        daemon.wait()
    };
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    let first = "ready socket=DIR/a.sock serial=S-1 nqn=nqn.2014-08.org:a";
    assert_eq!(lines[0], stage.expand(first));
    let start = stage.expand("ready socket=DIR/b.sock serial=BW");
    let rest = lines[1].strip_prefix(&start).expect("a serial of ours");
    let (serial, nqn) = rest.split_once(" nqn=").expect("a name");
    let is_upper_hex = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
    assert_eq!(serial.len(), 18);
    assert!(serial.chars().all(is_upper_hex), "{serial}");
    let uuid = nqn.strip_prefix("nqn.2014-08.org.nvmexpress:uuid:");
    uuid::Uuid::parse_str(uuid.expect("a UUID's name")).expect("a UUID");
    assert!(stderr.contains("client connected"), "logs: {stderr}");
}

#[test]
fn the_arguments_for_qemu_follow_each_ready_line() {
    let stage = Stage::new();
    let two = "--bdev null:b --controller socket=DIR/b.sock,ns=b";
    let daemon = Daemon::serve(&stage, &format!("--print-qemu {ONE} {two}"));
    let said = daemon.stdout();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for (pair, name) in lines.chunks(2).zip(["a.sock", "b.sock"]) {
        let path = stage.path(name).display().to_string();
        assert!(pair[0].starts_with(&format!("ready socket={path} ")));
        let json = pair[1]
            .strip_prefix("-device '")
            .and_then(|rest| rest.strip_suffix('\''));
        let json: serde_json::Value =
            serde_json::from_str(json.expect("an argument in quotes")).expect("JSON");
        let socket = serde_json::json!({"type": "unix", "path": path});
        let device = serde_json::json!({"driver": "vfio-user-pci", "socket": socket});
        assert_eq!(json, device);
    }
    daemon.stop();
}

#[test]
fn a_stale_socket_is_replaced() {
    let stage = Stage::new();
    drop(UnixListener::bind(stage.path("a.sock")).expect("a socket"));
    UnixStream::connect(stage.path("a.sock")).expect_err("nobody serves it");
    let daemon = Daemon::serve(&stage, ONE);
    Host::connect(&stage.path("a.sock")).write_pages(1, 1);
    daemon.signal("KILL");
    daemon.wait();
    assert!(stage.path("a.sock").exists(), "nobody removed it");
    let daemon = Daemon::serve(&stage, ONE);
    Host::connect(&stage.path("a.sock")).write_pages(1, 1);
    daemon.stop();
}

#[test]
fn sockets_have_the_permissions_that_were_asked_for() {
    let stage = Stage::new();
    let daemon = Daemon::serve(&stage, ONE);
    assert_eq!(mode(&stage.path("a.sock")), 0o600);
    daemon.stop();
    let group = nix::unistd::Group::from_gid(nix::unistd::getgid());
    let group = group.expect("groups").expect("our group").name;
    let arguments = format!(
        "--socket-mode 0660 --socket-group {group} {ONE} --bdev null:b \
         --controller socket=DIR/b.sock,ns=b,mode=0606,group={group}"
    );
    let daemon = Daemon::serve(&stage, &arguments);
    assert_eq!(mode(&stage.path("a.sock")), 0o660);
    assert_eq!(mode(&stage.path("b.sock")), 0o606);
    for name in ["a.sock", "b.sock"] {
        let metadata = stage.path(name).metadata().expect("a socket");
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.gid(), nix::unistd::getgid().as_raw());
    }
    daemon.stop();
}

#[test]
fn each_signal_to_stop_ends_cleanly_and_leaves_no_socket() {
    let stage = Stage::new();
    for signal in ["TERM", "INT", "HUP"] {
        let two = "--bdev null:b --controller socket=DIR/b.sock,ns=b";
        let daemon = Daemon::serve(&stage, &format!("{ONE} {two}"));
        // A client that is connected, with commands that were never taken, does not hold it up.
        let mut host = Host::connect(&stage.path("a.sock"));
        host.write_pages(100, 1);
        host.start(NvmOpcode::READ, 0, 0);
        daemon.signal(signal);
        let Ended { code, stderr, .. } = daemon.wait();
        assert_eq!(code, Some(0), "SIG{signal}: {stderr}");
        assert!(stage.snapshot().is_empty(), "SIG{signal}");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let stage = Stage::new();
    let daemon = Daemon::serve(&stage, ONE);
    // Both wait until it goes on, so the second comes before the first has done its work.
    daemon.signal("STOP");
    daemon.signal("TERM");
    daemon.signal("INT");
    daemon.signal("CONT");
    let Ended { code, stderr, .. } = daemon.wait();
    assert_eq!(code, Some(1), "{stderr}");
}

#[test]
fn a_hangup_that_was_ignored_stays_ignored() {
    let stage = Stage::new();
    let daemon = Daemon::start_without_hangup(&stage, &format!("--disable-cpumask-locks {ONE}"));
    daemon.signal("HUP");
    let mut host = Host::connect(&stage.path("a.sock"));
    host.write_pages(100, 1);
    daemon.stop();
}

#[test]
fn data_on_a_file_disk_is_there_after_a_restart() {
    let stage = Stage::new();
    let arguments = "--bdev file:a,path=DIR/image,size=1m --controller socket=DIR/a.sock,ns=a";
    for (version, signal) in [(1, "TERM"), (2, "INT"), (3, "KILL")] {
        let daemon = Daemon::serve(&stage, arguments);
        let mut host = Host::connect(&stage.path("a.sock"));
        if version > 1 {
            host.check_pages(256, version - 1);
        }
        host.write_pages(256, version);
        daemon.signal(signal);
        daemon.wait();
    }
    let daemon = Daemon::serve(&stage, arguments);
    Host::connect(&stage.path("a.sock")).check_pages(256, 3);
    daemon.stop();
    assert_eq!(
        fs::metadata(stage.path("image")).expect("it").len(),
        1 << 20
    );
}

#[test]
fn a_reactor_that_sleeps_or_pauses_wakes_for_each_command() {
    let stage = Stage::new();
    for idle in ["sleep=50", "sleep=1000", "pause", "spin"] {
        let arguments = format!("--idle {idle} --bdev file:a,path=DIR/image,size=1m");
        let controller = "--controller socket=DIR/a.sock,ns=a";
        let daemon = Daemon::serve(&stage, &format!("{arguments} {controller}"));
        let mut host = Host::connect(&stage.path("a.sock"));
        host.write_pages(16, 1);
        // Longer than it stays awake, and so long that sleeps have grown.
        for milliseconds in [5, 5, 100] {
            thread::sleep(Duration::from_millis(milliseconds));
            host.check_pages(16, 1);
        }
        thread::sleep(Duration::from_millis(100));
        daemon.stop();
    }
}

/// A flush waits, so the kernel has it done by a thread of its own.
#[test]
fn threads_of_the_kernel_work_where_no_reactor_polls() {
    let stage = Stage::new();
    let arguments = "--bdev file:a,path=DIR/image,size=1m --controller socket=DIR/a.sock,ns=a";
    let daemon = Daemon::serve(&stage, arguments);
    let mut host = Host::connect(&stage.path("a.sock"));
    host.start(NvmOpcode::FLUSH, 0, 0);
    host.finish(1);
    let (main, workers) = (daemon.cores_of("bellwire"), daemon.cores_of("iou-wrk"));
    assert_eq!(main.len(), 1, "{main:?}");
    assert!(
        !workers.is_empty() && workers.iter().all(|cores| *cores == main[0]),
        "{workers:?}"
    );
    daemon.stop();
}

#[test]
fn a_readonly_disk_refuses_writes_and_keeps_its_data() {
    let stage = Stage::new();
    let arguments = "--controller socket=DIR/a.sock,ns=a --bdev file:a,path=DIR/image";
    let daemon = Daemon::serve(&stage, &format!("{arguments},size=64k"));
    Host::connect(&stage.path("a.sock")).write_pages(16, 1);
    daemon.stop();
    let image = stage.path("image");
    fs::set_permissions(&image, Permissions::from_mode(0o400)).expect("permissions");
    let daemon = Daemon::serve(&stage, &format!("{arguments},readonly=on"));
    let mut host = Host::connect(&stage.path("a.sock"));
    host.check_pages(16, 1);
    host.fill(0, 0, 2);
    host.start(NvmOpcode::WRITE, 0, 0);
    host.ring_io();
    assert_eq!(host.wait().status(), Status::NAMESPACE_WRITE_PROTECTED);
    host.check_pages(16, 1);
    daemon.stop();
}

#[test]
fn a_core_is_polled_by_one_process_unless_it_is_told_otherwise() {
    let stage = Stage::new();
    let first = Daemon::start(&stage, ONE);
    let second = "serve --log error --bdev null:b --controller socket=DIR/b.sock,ns=b";
    let before = stage.snapshot();
    let Ended {
        code,
        stdout,
        stderr,
    } = run(&stage, &stage.words(second));
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(stderr.contains("is polled by process"), "{stderr}");
    assert!(stderr.contains("--disable-cpumask-locks"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(stage.snapshot(), before);

    let second = second.strip_prefix("serve").expect("a verb");
    let second = Daemon::serve(&stage, second);
    drop(Host::connect(&stage.path("b.sock")));
    second.stop();
    // The lock goes with its owner, however that ends.
    first.signal("KILL");
    first.wait();
    Daemon::start(&stage, ONE).stop();
}
