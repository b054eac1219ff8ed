//! Whether pods can run on this machine, and the packages that they need.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::say;

/// Programs, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 7] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("buildah", "buildah"),
    ("unshare", "util-linux"),
];

/// Root's folders, also where root's PATH lacks some of them.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What the node's processes get as PATH.
pub(crate) fn path() -> String {
    FOLDERS.join(":")
}

/// The folder with the network plugins, wherever the distribution has it.
pub(crate) fn network_plugins() -> Option<&'static str> {
    ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"]
        .into_iter()
        .find(|folder| Path::new(folder).join("ptp").exists())
}

fn find(program: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<_> =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    missing.dedup();
    if network_plugins().is_none() {
        missing.push("containernetworking-plugins");
    }
    missing
}

/// Why pods cannot run on this machine, in one line; `None` if they can, perhaps after packages were installed.
pub fn obstacle() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("a node needs Linux".to_owned());
    }
    if fs::metadata("/proc/self").map_or(true, |this| this.uid() != 0) {
        return Some("a node needs root rights".to_owned());
    }
    let missing = missing_packages();
    if !missing.is_empty() && find("apt-get").is_none() {
        let names = missing.join(" ");
        return Some(format!("programs are missing; install what your distribution has for Debian's packages {names}"));
    }
    let tried = Command::new("unshare")
        .args(["--fork", "--pid", "--mount", "--net", "--ipc", "true"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("no namespaces here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("cannot run unshare: {error}")),
    }
}

/// Installs the packages that are missing, saying so before.
pub(crate) fn install_packages() -> Result<()> {
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C").stdin(Stdio::null());
        command.output().context("cannot run apt-get")
    };
    let names = missing.join(" ");
    say(&format!("pods need Debian packages that are not installed: {names}"));
    // What fails here shows below.
    let _ = apt(&["update", "-qq"])?;
    let install = [&["install", "--no-install-recommends"], &missing[..]].concat();
    let asked = apt(&[&install[..], &["--assume-no"]].concat())?;
    for line in String::from_utf8_lossy(&asked.stdout).lines() {
        if line.starts_with("Need to get") || line.starts_with("After this operation") {
            say(line);
        }
    }
    say(&format!("apt-get {}", install.join(" ")));
    let output = apt(&[&install[..], &["--yes", "-qq"]].concat())?;
    let missing = missing_packages();
    if !output.status.success() || !missing.is_empty() {
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("still missing: {}; `apt-get install {names}` ended with {}: {error}", missing.join(" "), output.status);
    }
    Ok(())
}
