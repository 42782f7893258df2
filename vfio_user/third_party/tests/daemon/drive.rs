//! The third-party client crate against the real process.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use bdev::memory::Iova;
use nix::sys::eventfd::EventFd;
use nvme::spec::identify::{IdentifyController, IdentifyNamespace, cns};
use nvme::spec::{Nsid, NvmOpcode};
use rust_vmm_vfio_user::Client;
use vfio_user::{irq, region};

use crate::daemon::Daemon;
use crate::host::{Host, Link};
use crate::stage::Stage;

impl Link for Client {
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        self.region_read(region, offset, data).expect("a read");
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.region_write(region, offset, data).expect("a write");
    }

    fn map(&mut self, iova: Iova, bytes: u64, memory: &File) {
        self.dma_map(0, iova.0, bytes, memory.as_raw_fd())
            .expect("a map");
    }

    fn doorbells(&mut self) -> Option<File> {
        None
    }
}

#[test]
fn a_third_party_client_finds_its_device_and_drives_it() {
    let stage = Stage::new();
    let arguments = "--bdev malloc:a,size=1m --controller socket=DIR/a.sock,ns=a,vectors=9";
    let daemon = Daemon::serve(&stage, arguments);
    let mut client = Client::new(&stage.path("a.sock")).expect("a client");
    let bar = client.region(region::BAR0).expect("BAR0");
    assert!(bar.size >= 0x2000 && bar.size.is_power_of_two());
    assert_eq!(bar.sparse_areas.len(), 1);
    assert_eq!(bar.sparse_areas[0].offset, 0x1000);
    assert!(bar.file_offset.is_some(), "doorbells can be mapped");
    let config = client.region(region::CONFIG).expect("configuration space");
    assert_eq!(config.size, 4096);
    assert!(config.file_offset.is_none());
    let info = client.get_irq_info(irq::MSIX).expect("MSI-X");
    assert_eq!(info.count, 9);
    assert_eq!(client.get_irq_info(irq::INTX).expect("INTx").count, 0);
    let mut class = [0; 3];
    client.read(region::CONFIG, 9, &mut class);
    assert_eq!(class, [2, 8, 1], "an NVMe controller");
    let vector = EventFd::new().expect("an eventfd");
    let fds = [vector.as_fd().as_raw_fd()];
    let bound = client.set_irqs(irq::MSIX, 0x24, 0, 1, &fds);
    bound.expect("a binding");

    let mut host = Host::over(client);
    let controller: IdentifyController = host.identify(cns::CONTROLLER, Nsid::NONE);
    assert!(controller.mn.starts_with(b"bellwire NVMe "));
    let namespace: IdentifyNamespace = host.identify(cns::NAMESPACE, Nsid(1));
    assert_eq!(namespace.nsze.get(), 2048);
    host.write_pages(256, 1);
    host.check_pages(256, 1);
    host.link.reset().expect("a reset");
    assert!(!host.status().rdy(), "reset");
    host.bring_up();
    host.check_pages(256, 1);
    host.link.shutdown().expect("an end");

    let again = Client::new(&stage.path("a.sock")).expect("a client");
    let mut again = Host::over(again);
    again.check_pages(256, 1);
    again.fill(0, 3, 2);
    again.start(NvmOpcode::WRITE, 0, 3);
    again.finish(1);
    drop(again);
    let mut ours = Host::connect(&stage.path("a.sock"));
    ours.check_pages(3, 1);
    daemon.stop();
}
