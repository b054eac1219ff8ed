//! Container images, made on this machine from what was built on it: no registry is asked for anything.
//!
//! An image is an archive in OCI's format in `target/images`, made by buildah. Nothing else of it stays on disk.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::build::{self, Part};
use crate::process;

/// Where distributions have the certificates of public authorities.
const CA_ROOTS: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// What the static binaries are built for: this machine. That it is named keeps the flags of a static binary away from
/// procedural macros, which cannot be static.
const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// An image in an archive.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name, as manifests have it.
    pub name: String,
    /// The archive.
    pub archive: PathBuf,
}

impl Image {
    /// The size of the archive, which is what a registry would send, in bytes.
    pub fn size(&self) -> Result<u64> {
        Ok(fs::metadata(&self.archive)?.len())
    }

    /// The size of its unpacked layers, which is what it takes on a node, in bytes.
    pub fn unpacked(&self) -> Result<u64> {
        let mut archive = tar::Archive::new(File::open(&self.archive)?);
        let mut size = 0;
        for entry in archive.entries()? {
            let mut entry = BufReader::new(entry?);
            // Layers are compressed; what describes them is JSON.
            if entry.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
                size += io::copy(&mut flate2::bufread::GzDecoder::new(entry), &mut io::sink())?;
            }
        }
        ensure!(size > 0, "{} has no compressed layer", self.archive.display());
        Ok(size)
    }
}

/// Bellhop's image: the Dockerfile of this repository, its build stage replaced by the static binary of
/// `make static`.
pub async fn bellhop(name: &str) -> Result<Image> {
    let binary = static_binary("bellhop")?;
    let roots = CA_ROOTS.iter().find(|path| Path::new(path).exists());
    let roots = roots.with_context(|| format!("no CA certificates at {}", CA_ROOTS.join(" or ")))?;
    let dockerfile = fs::read_to_string(crate::root().join("Dockerfile"))?;
    let files = [("prebuilt/bellhop", binary.as_path()), ("prebuilt/ca-certificates.crt", Path::new(roots))];
    build(name, &dockerfile, &files, &["--build-arg", "BINARY=prebuilt"]).await
}

/// The example runner.
pub async fn runner() -> Result<Image> {
    from_binary("localhost/bellhop-test/runner:1", "runner", &static_binary("examples/runner")?).await
}

/// What holds a pod's namespaces.
pub async fn pause() -> Result<Image> {
    let folder = folder()?;
    let binary = folder.join("pause");
    let mut compiler = Command::new("gcc");
    compiler.args(["-Os", "-static", "-s", "-o"]).arg(&binary).arg(crate::root().join("tests/cluster/pods/pause.c"));
    process::run(compiler).await?;
    let image = from_binary(crate::node::PAUSE_IMAGE, "pause", &binary).await?;
    fs::remove_file(binary)?;
    Ok(image)
}

/// CoreDNS.
pub async fn coredns() -> Result<Image> {
    from_binary("localhost/bellhop-test/coredns:1", "coredns", &build::part(Part::CoreDns)?).await
}

/// A program that tells what a pod sees (`tests/cluster/visitor`), on port 8080.
pub async fn visitor() -> Result<Image> {
    from_binary("localhost/bellhop-test/visitor:1", "visitor", &build::part(Part::Visitor)?).await
}

fn static_binary(file: &str) -> Result<PathBuf> {
    let path = crate::root().join("target").join(TARGET).join("release").join(file);
    if !path.exists() {
        bail!("there is no {}; `make static` makes it", path.display());
    }
    Ok(path)
}

/// An image with nothing but a static binary, which does not run as root.
async fn from_binary(name: &str, file: &str, binary: &Path) -> Result<Image> {
    let dockerfile =
        format!("FROM scratch\nCOPY --chmod=755 {file} /{file}\nUSER 65532:65532\nENTRYPOINT [\"/{file}\"]\n");
    build(name, &dockerfile, &[(file, binary)], &[]).await
}

fn folder() -> Result<PathBuf> {
    let folder = crate::root().join("target/images");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Builds an image, unless the one that is there was built from the same things.
async fn build(name: &str, dockerfile: &str, files: &[(&str, &Path)], arguments: &[&str]) -> Result<Image> {
    let folder = folder()?;
    // The name in a manifest has no slashes in its last part.
    let short = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join(".lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;

    let mut hash = Sha256::new();
    hash.update(format!("{name}\n{dockerfile}\n{arguments:?}\n"));
    for (path, source) in files {
        hash.update(path);
        hash.update(fs::read(source).with_context(|| format!("cannot read {}", source.display()))?);
    }
    let stamp = hex::encode(hash.finalize());
    let image = Image { name: name.to_owned(), archive: folder.join(format!("{short}.tar")) };
    let stamp_file = folder.join(format!(".{short}.stamp"));
    if image.archive.exists() && fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
        return Ok(image);
    }

    let work = folder.join(".work");
    let _ = fs::remove_dir_all(&work);
    let context = work.join("context");
    fs::create_dir_all(&context)?;
    fs::write(work.join("Dockerfile"), dockerfile)?;
    for (path, source) in files {
        let target = context.join(path);
        fs::create_dir_all(target.parent().context("a file is in a folder")?)?;
        fs::copy(source, target)?;
    }
    let buildah = || {
        let mut command = Command::new("buildah");
        // The driver that works on every file system, and mounts nothing.
        command.args(["--storage-driver", "vfs", "--root"]).arg(work.join("storage"));
        command.arg("--runroot").arg(work.join("run"));
        command
    };
    let mut command = buildah();
    command
        .args(["bud", "--isolation", "chroot", "--timestamp", "0", "--quiet", "--tag", name, "--file"])
        .arg(work.join("Dockerfile"))
        .args(arguments)
        .arg(&context);
    process::run(command).await?;
    let unfinished = work.join("image.tar");
    let mut command = buildah();
    command.args(["push", "--quiet", name]).arg(format!("oci-archive:{}:{name}", unfinished.display()));
    process::run(command).await?;
    fs::rename(unfinished, &image.archive)?;
    fs::write(&stamp_file, stamp)?;
    fs::remove_dir_all(&work)?;
    drop(lock);
    Ok(image)
}
