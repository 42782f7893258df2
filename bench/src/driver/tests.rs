//! The driver against an emulated controller.

use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::emulated::{self, Model, Target};

const TIMEOUT: Duration = Duration::from_secs(5);

fn connected(model: Model) -> (Target, Controller) {
    let target = Target::new(model);
    let controller = Controller::connect(&target.socket(), TIMEOUT).expect("a controller");
    (target, controller)
}

#[test]
fn a_controller_is_enabled_and_identified() {
    let (_target, mut controller) = connected(Model::PLAIN);
    let identity = controller.identify().expect("a controller structure");
    assert_eq!(&identity.sn, b"SERIAL-1            ");
    assert_eq!(controller.transfer_max(&identity), Some(128 << 10));
    assert_eq!(controller.namespaces().expect("a list"), [Nsid(1)]);
    let namespace = controller.identify_namespace(Nsid(1)).expect("a namespace");
    assert_eq!(namespace.formatted().lbads, 9);
    let uuid = controller.namespace_uuid(Nsid(1)).expect("descriptors");
    assert_eq!(uuid, Some(emulated::UUID));
    assert!(controller.doorbells_mapped());
    controller.shut_down().expect("a shutdown");
}

#[test]
fn a_second_host_finds_the_controller_as_the_first_did() {
    let (target, controller) = connected(Model::PLAIN);
    drop(controller);
    let mut again = Controller::connect(target.folder(), TIMEOUT).expect("a controller");
    assert!(again.identify().is_ok());
}

#[test]
fn more_queues_than_are_granted_are_an_error() {
    let (_target, mut controller) = connected(Model::PLAIN);
    assert!(controller.request_queues(8).is_ok());
    let refused = controller.request_queues(9);
    let told = refused.expect_err("too many").to_string();
    assert!(told.contains('9') && told.contains('8'), "{told}");
}

#[test]
fn a_controller_that_does_not_become_ready_is_given_up() {
    let model = Model {
        ready: false,
        ..Model::PLAIN
    };
    let target = Target::new(model);
    let refused = Controller::connect(&target.socket(), TIMEOUT).map(|_| ());
    assert!(matches!(
        refused,
        Err(DriverError::NotReady { state: "ready", .. })
    ));
}

#[test]
fn nobody_at_the_socket_is_told_with_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("nobody.sock");
    let refused = Controller::connect(&socket, TIMEOUT).map(|_| ());
    let told = refused.expect_err("nobody").to_string();
    assert!(told.contains("nobody.sock"), "{told}");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("silent.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    // The listener accepts nobody: the connection waits in its backlog.
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let refused = Controller::connect(&socket, Duration::from_millis(200)).map(|_| ());
        done.send(refused.is_err())
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true));
}

#[test]
fn a_uuid_is_found_behind_other_descriptors() {
    let mut list = vec![DescriptorHeader::NGUID, 16, 0, 0];
    list.extend([1; 16]);
    list.extend([DescriptorHeader::UUID, 16, 0, 0]);
    list.extend([7; 16]);
    list.resize(4096, 0);
    assert_eq!(uuid_descriptor(&list), Some([7; 16]));
    assert_eq!(uuid_descriptor(&list[..20]), None);
    list[20] = DescriptorHeader::CSI;
    assert_eq!(uuid_descriptor(&list), None);
}

#[test]
fn a_uuid_that_is_cut_off_or_of_another_length_is_none() {
    let list = [DescriptorHeader::UUID, 16, 0, 0, 1, 2, 3];
    assert_eq!(uuid_descriptor(&list), None);
    assert_eq!(uuid_descriptor(&[DescriptorHeader::UUID, 1, 0, 0, 9]), None);
    assert_eq!(uuid_descriptor(&[]), None);
}

#[test]
fn a_folder_stands_for_the_socket_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(socket_path(folder.path()), folder.path().join("cntrl"));
    let socket = folder.path().join("disk.sock");
    assert_eq!(socket_path(&socket), socket);
}
