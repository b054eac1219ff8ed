//! The addresses of a node, of its pods and of its Services.
//!
//! All of them are in 10.213.0.0/16, which hardly anybody uses. One of eight parts of it is taken for each cluster, so
//! that several test processes can have one at a time.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, bail};

const PARTS: u8 = 8;
const PART_SIZE: u8 = 32;

/// One part, which nobody else has as long as this value lives.
#[derive(Debug)]
pub struct Network {
    index: u8,
    _lock: File,
}

impl Network {
    /// Takes a part that no other process has, and that this machine routes to nowhere in particular.
    pub(crate) fn take() -> Result<Network> {
        let folder = std::env::temp_dir().join("bellhop-networks");
        fs::create_dir_all(&folder)?;
        for index in 0..PARTS {
            let lock = File::options().create(true).truncate(false).write(true).open(folder.join(index.to_string()))?;
            if lock.try_lock().is_err() {
                continue;
            }
            let network = Network { index, _lock: lock };
            // A route of an earlier node vanishes a moment after its processes.
            for _ in 0..20 {
                if network.is_unused()? {
                    return Ok(network);
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
        bail!(
            "10.213.0.0/16 is in use: every part of it has a route on this machine, or belongs to another test process"
        )
    }

    fn is_unused(&self) -> Result<bool> {
        let all = format!("{}/19", self.address(0, 0));
        let output =
            Command::new("ip").args(["-4", "route", "show", "root", &all]).output().context("cannot run ip")?;
        Ok(output.stdout.is_empty())
    }

    fn address(&self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.index * PART_SIZE + third, fourth)
    }

    /// The name of what the node has on this machine: a network interface and control groups.
    pub fn name(&self) -> String {
        format!("bellhop-test{}", self.index)
    }

    /// This machine's address, as the node and its pods see it.
    pub fn host(&self) -> Ipv4Addr {
        self.address(0, 1)
    }

    /// The node's address.
    pub fn node(&self) -> Ipv4Addr {
        self.address(0, 2)
    }

    /// The subnet of the pods.
    pub fn pods(&self) -> String {
        format!("{}/24", self.address(1, 0))
    }

    /// The subnet of the Services.
    pub fn services(&self) -> String {
        format!("{}/20", self.address(16, 0))
    }

    /// The Service `kubernetes`.
    pub fn first_service(&self) -> Ipv4Addr {
        self.address(16, 1)
    }

    /// The Service `kube-dns`.
    pub fn dns(&self) -> Ipv4Addr {
        self.address(16, 10)
    }
}
