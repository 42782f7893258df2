//! `compare --pause` stops daemons, and leaves none stopped.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::daemon::{Daemon, bench, ends_with};
use super::{allowed_cores, folder, json, malloc};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two daemons on the same cores. The second has the turn: it is dropped when the first is gone.
struct Two([Daemon; 2]);

impl Two {
    fn serve(folders: [&Path; 2]) -> Two {
        let second = malloc(folders[1]);
        let first = second.serve_beside(folders[0], "malloc:m0,size=4m");
        Two([first, second])
    }

    fn compare(&self, options: &str) -> Command {
        // A signal that whoever runs the tests has ignored would be ignored here, too.
        let mut compare = Command::new("env");
        compare.args(["--default-signal=INT", env!("CARGO_BIN_EXE_bellwire-bench")]);
        compare.args("compare --pause --rw randread --iodepth 4 --window 0.2".split(' '));
        compare.args(self.0.each_ref().map(Daemon::socket));
        compare.args(options.split_whitespace());
        compare
    }

    fn stopped(&self) -> [bool; 2] {
        self.0.each_ref().map(Daemon::is_stopped)
    }

    /// Waits until they are as expected. A window is long enough to be seen.
    fn wait_until(&self, compare: Option<&mut Child>, expected: [bool; 2]) {
        let begun = Instant::now();
        let mut compare = compare;
        while self.stopped() != expected {
            let ended = compare.as_mut().map(|child| child.try_wait());
            assert!(!matches!(ended, Some(Ok(Some(_)))), "no {expected:?}");
            assert!(begun.elapsed() < PATIENCE, "no {expected:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether they are as expected for a good part of a window.
    fn stay(&self, expected: [bool; 2]) -> bool {
        (0..150).all(|_| {
            thread::sleep(Duration::from_millis(1));
            self.stopped() == expected
        })
    }
}

fn start(compare: &mut Command) -> Child {
    let compare = compare.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    compare.expect("a process")
}

/// The process that another one has started.
fn child_of(parent: u32) -> Pid {
    let parent = parent.to_string();
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let child = processes.filter_map(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let is_child = fields.split(' ').nth(1) == Some(&parent);
        is_child.then(|| process.file_name().to_str()?.parse().ok())?
    });
    Pid::from_raw(child.last().expect("a child"))
}

#[test]
fn one_target_runs_while_the_other_is_stopped_and_both_in_the_end() {
    let folders = [folder(), folder()];
    let two = Two::serve(folders.each_ref().map(tempfile::TempDir::path));
    let mut compare = start(&mut two.compare("--windows 8"));
    // Each turn comes: of eight random orders not all are the same for long.
    two.wait_until(Some(&mut compare), [true, false]);
    two.wait_until(Some(&mut compare), [false, true]);
    // It says 1 where other work spoils all windows.
    let ended = compare.wait().expect("a child").code();
    assert!(matches!(ended, Some(0 | 1)), "{ended:?}");
    assert_eq!(two.stopped(), [false, false]);
    let [first, second] = two.0;
    first.stop();
    second.stop();
}

#[test]
fn whatever_ends_a_comparison_its_targets_go_on() {
    let folders = [folder(), folder()];
    let two = Two::serve(folders.each_ref().map(tempfile::TempDir::path));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        for stopped in [[true, false], [false, true]] {
            // As a terminal does it: all processes of a group are signalled.
            let mut compare = two.compare("--windows 100000");
            let mut compare = start(compare.process_group(0));
            two.wait_until(Some(&mut compare), stopped);
            if signal != Signal::SIGKILL {
                // And as `killall` does it: all processes of a name.
                kill(child_of(compare.id()), signal).expect("a living guard");
            }
            killpg(Pid::from_raw(compare.id() as i32), signal).expect("a living group");
            compare.wait().expect("a child");
            two.wait_until(None, [false, false]);
        }
    }
    for daemon in &two.0 {
        ends_with(&mut daemon.run("--rw read --bs 64k"), 0);
    }
}

#[test]
fn a_comparison_that_fails_leaves_no_target_stopped() {
    let folders = [folder(), folder()];
    let two = Two::serve(folders.each_ref().map(tempfile::TempDir::path));
    let mut compare = start(&mut two.compare("--windows 100000"));
    two.wait_until(Some(&mut compare), [true, false]);
    two.0[1].signal(Signal::SIGKILL);
    compare.wait().expect("a child");
    assert!(!two.0[0].is_stopped());
    let [left, _killed] = two.0;
    left.stop();
}

#[test]
fn the_machine_has_windows_while_every_target_is_stopped() {
    let folders = [folder(), folder()];
    let two = Two::serve(folders.each_ref().map(tempfile::TempDir::path));
    let cores = allowed_cores();
    let [client, reactor] = [cores[0], cores[cores.len() - 1]];
    if client == reactor {
        return;
    }
    let bare = format!("--cores [{client}] --reactor-core {reactor} --bare");
    let mut compare = start(&mut two.compare(&format!("--windows 100000 {bare} copy")));
    for target in [[true, false], [false, true]] {
        two.wait_until(Some(&mut compare), target);
        // Both are for a moment also when one takes the other's place.
        let windows = Instant::now();
        while !two.stay([true, true]) {
            assert!(windows.elapsed() < PATIENCE, "no window of the machine");
        }
    }
    kill(Pid::from_raw(compare.id() as i32), Signal::SIGTERM).expect("a living process");
    compare.wait().expect("a child");
    two.wait_until(None, [false, false]);
    let output = two
        .compare(&format!("--windows 3 --json {bare} copy"))
        .output();
    let told = json(&String::from_utf8(output.expect("a process").stdout).expect("text"));
    let targets = told["targets"].as_array().expect("a list");
    assert_eq!(targets.len(), 2);
    for row in targets.iter().chain([&told["machine"]]) {
        let number = |key: &str| row[key].as_f64().expect("a number");
        assert_eq!(number("windows") + number("thrown_away"), 3.0, "{told}");
        if number("windows") > 0.0 {
            assert!(number("round_trip_ns") > 0.0, "{told}");
        }
    }
    let name = told["machine"]["target"].as_str().expect("a name");
    assert!(name.starts_with("the machine (4 KiB read, plain"), "{name}");
    assert_eq!(two.stopped(), [false, false]);
    // One target is enough then, and none of it goes without --pause or with a mixture.
    let one = |options: &str| {
        let mut compare = bench("compare --iodepth 4 --window 0.1 --windows 3");
        compare
            .arg(two.0[0].socket())
            .args(options.split_whitespace());
        compare
    };
    let output = one(&format!("--rw randread --pause {bare} empty")).output();
    let text = String::from_utf8(output.expect("a process").stdout).expect("text");
    assert!(text.contains("the machine (empty command)"), "{text}");
    for (options, told) in [
        (format!("--rw randread {bare} empty"), "--pause"),
        (format!("--rw randrw --pause {bare} copy"), "mixed"),
        ("--rw randread --pause".to_owned(), "compared with nothing"),
    ] {
        let (_, refused) = ends_with(&mut one(&options), 2);
        assert!(refused.contains(told), "{options}: {refused}");
    }
    assert_eq!(two.stopped(), [false, false]);
}

#[test]
fn controllers_of_one_daemon_are_not_stopped_for_one_another() {
    let folder = folder();
    let bdevs = ["malloc:m0,size=4m", "malloc:m1,size=4m"].map(str::to_owned);
    let namespaces = [",ns=m0", ",ns=m1"].map(str::to_owned);
    let daemon = Daemon::serve_each(folder.path(), &bdevs, &namespaces);
    let mut compare = bench("compare --pause --rw randread --windows 3 --window 0.05 --json");
    compare.args(daemon.sockets());
    let output = compare.output().expect("a process");
    let told = json(&String::from_utf8(output.stdout).expect("text"));
    for target in told["targets"].as_array().expect("a list") {
        let number = |key: &str| target[key].as_f64().expect("a number");
        assert_eq!(number("windows") + number("thrown_away"), 3.0);
    }
    daemon.stop();
}
