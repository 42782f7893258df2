//! The disks of a target, by name.

use std::sync::Arc;

use anyhow::Context;
use bdev::Bdev;
use bdev::file::{File, FileConfig};
use bdev::malloc::{Malloc, MallocConfig};
use bdev::memory::Nodes;
use bdev::null::{Null, NullConfig};

use crate::config::{BdevConfig, BdevKind};

/// Open disks. Until they are kept, files that were created for them go when this is dropped: what
/// could not be built leaves nothing behind.
pub struct Disks {
    bdevs: Vec<Arc<dyn Bdev>>,
    /// Those that may have been created.
    files: Vec<Arc<File>>,
}

impl Disks {
    /// Opens every disk, with its memory on the nodes that go with its name.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub fn open(configs: &[BdevConfig], nodes_of: impl Fn(&str) -> Nodes) -> anyhow::Result<Disks> {
        let mut disks = Disks {
            bdevs: Vec::new(),
            files: Vec::new(),
        };
        for config in configs {
            let bdev = disks.open_one(config, &nodes_of(&config.name))?;
            tracing::info!(bdev = bdev.name(), uuid = %bdev.uuid(), "disk opened");
            disks.bdevs.push(bdev);
        }
        Ok(disks)
    }

    fn open_one(&mut self, config: &BdevConfig, nodes: &Nodes) -> anyhow::Result<Arc<dyn Bdev>> {
        let (name, uuid, block_size) = (config.name.clone(), config.uuid, config.block_size);
        Ok(match config.kind.clone() {
            BdevKind::Null { size } => {
                let blocks = size / u64::from(block_size);
                Null::new(NullConfig {
                    name,
                    uuid,
                    blocks,
                    block_size,
                })?
            }
            BdevKind::Malloc { size } => {
                let config = MallocConfig {
                    name,
                    uuid,
                    size,
                    block_size,
                };
                Malloc::on_nodes(config, nodes)?
            }
            BdevKind::File {
                path,
                size,
                read_only,
                direct,
            } => {
                let file = File::open(FileConfig {
                    name,
                    uuid,
                    path,
                    size,
                    block_size,
                    read_only,
                    direct,
                })?;
                self.files.push(Arc::clone(&file));
                file
            }
        })
    }

    /// A disk by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> anyhow::Result<Arc<dyn Bdev>> {
        let found = self.bdevs.iter().find(|bdev| bdev.name() == name);
        found
            .cloned()
            .with_context(|| format!("there is no --bdev {name}"))
    }

    /// The disks, for good.
    pub fn keep(mut self) -> Vec<Arc<dyn Bdev>> {
        self.files.clear();
        std::mem::take(&mut self.bdevs)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for file in &self.files {
            if let Err(error) = file.remove_if_created() {
                tracing::warn!(%error, "a new file is left behind");
            }
        }
    }
}
