//! Builds the real parts from source into `target/cluster/bin`, or finds them there.
//!
//! A stamp beside each binary says what it was built from (go.mod, go.sum, flags, Go's version): as long as that is
//! unchanged, nothing is compiled. Two processes may ask at once; one builds, the other waits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::process::log_tail;

/// A program that the tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The API server's store.
    Etcd,
    /// The API server.
    ApiServer,
    /// Garbage collection, namespaces, service accounts.
    ControllerManager,
    /// The command line.
    Kubectl,
    /// Writes the control plane's certificates (`tests/cluster/certs`).
    Certs,
    /// The external system.
    Gitea,
    /// Assigns pods to the node.
    Scheduler,
    /// Runs the pods of the node.
    Kubelet,
    /// Makes Services work on the node.
    KubeProxy,
    /// Resolves the names of Services.
    CoreDns,
    /// Installs the charts.
    Helm,
    /// Looks around from inside of a pod (`tests/cluster/visitor`).
    Visitor,
    /// Says how GitOps tools judge objects (`tests/cluster/kstatus`).
    Kstatus,
}

impl Part {
    /// What a control plane needs.
    pub const CONTROL_PLANE: [Part; 5] =
        [Part::Etcd, Part::ApiServer, Part::ControllerManager, Part::Kubectl, Part::Certs];

    /// What a node with pods needs besides.
    pub const NODE: [Part; 6] =
        [Part::Scheduler, Part::Kubelet, Part::KubeProxy, Part::CoreDns, Part::Helm, Part::Visitor];

    fn recipe(self) -> Recipe {
        let cluster = Recipe { folder: "tests/cluster", tags: "", cgo: false, ..Recipe::default() };
        match self {
            Part::Etcd => Recipe {
                file: "etcd",
                module: "go.etcd.io/etcd/server/v3",
                package: "go.etcd.io/etcd/server/v3",
                usually: "20 s",
                ..cluster
            },
            Part::ApiServer => {
                Recipe { usually: "5 to 8 minutes", ..cluster.kubernetes("k8s.io/kubernetes/cmd/kube-apiserver") }
            }
            Part::ControllerManager => {
                Recipe { usually: "1 minute", ..cluster.kubernetes("k8s.io/kubernetes/cmd/kube-controller-manager") }
            }
            Part::Kubectl => Recipe { usually: "30 s", ..cluster.kubernetes("k8s.io/kubernetes/cmd/kubectl") },
            Part::Certs => {
                Recipe { file: "certs", package: "./certs", sources: &["certs/main.go"], usually: "1 s", ..cluster }
            }
            Part::Gitea => Recipe {
                file: "gitea",
                folder: "tests/cluster/gitea",
                module: "code.gitea.io/gitea",
                package: "code.gitea.io/gitea",
                tags: "sqlite sqlite_unlock_notify",
                // SQLite is C.
                cgo: true,
                versions: &["main.Version="],
                usually: "4 minutes",
                ..Recipe::default()
            },
            Part::Scheduler => Recipe { usually: "20 s", ..cluster.kubernetes("k8s.io/kubernetes/cmd/kube-scheduler") },
            Part::Kubelet => Recipe { usually: "1 minute", ..cluster.kubernetes("k8s.io/kubernetes/cmd/kubelet") },
            Part::KubeProxy => Recipe { usually: "20 s", ..cluster.kubernetes("k8s.io/kubernetes/cmd/kube-proxy") },
            Part::CoreDns => Recipe {
                file: "coredns",
                folder: "tests/cluster/coredns",
                module: "github.com/coredns/coredns",
                package: ".",
                sources: &["main.go"],
                usually: "1 minute",
                ..cluster
            },
            Part::Helm => Recipe {
                file: "helm",
                folder: "tests/cluster/helm",
                module: "helm.sh/helm/v3",
                package: "helm.sh/helm/v3/cmd/helm",
                versions: &["helm.sh/helm/v3/internal/version.version=v"],
                usually: "1 minute",
                ..cluster
            },
            Part::Visitor => Recipe {
                file: "visitor",
                package: "./visitor",
                sources: &["visitor/main.go"],
                usually: "5 s",
                ..cluster
            },
            Part::Kstatus => Recipe {
                file: "kstatus",
                folder: "tests/cluster/kstatus",
                package: ".",
                sources: &["main.go"],
                usually: "20 s",
                ..cluster
            },
        }
    }

    /// Parts that envtest's folder has, so that they need not be built.
    fn in_assets(self) -> Option<PathBuf> {
        let folder = std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty())?;
        if !matches!(self, Part::Etcd | Part::ApiServer | Part::ControllerManager | Part::Kubectl) {
            return None;
        }
        let path = Path::new(&folder).join(self.recipe().file);
        // Envtest's archives have no kube-controller-manager.
        (path.exists() || self != Part::ControllerManager).then_some(path)
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Recipe {
    file: &'static str,
    /// Where go.mod is.
    folder: &'static str,
    /// The module whose version in go.mod is the part's version; empty for what lies in this repository.
    module: &'static str,
    package: &'static str,
    tags: &'static str,
    cgo: bool,
    /// Go variables that take the version.
    versions: &'static [&'static str],
    /// Files of this repository that are compiled.
    sources: &'static [&'static str],
    /// On two cores, with an empty cache.
    usually: &'static str,
}

impl Recipe {
    fn kubernetes(self, package: &'static str) -> Recipe {
        // Without a version, clients cannot parse what /version answers.
        Recipe {
            file: package.rsplit('/').next().unwrap_or(package),
            package,
            module: "k8s.io/kubernetes",
            versions: &["k8s.io/component-base/version.gitVersion=v"],
            ..self
        }
    }

    fn version(&self, go_mod: &str) -> Result<String> {
        if self.module.is_empty() {
            return Ok(String::new());
        }
        go_mod
            .lines()
            .map(|line| line.trim().trim_start_matches("require "))
            .filter_map(|line| line.strip_prefix(self.module)?.strip_prefix(" v"))
            .filter_map(|rest| rest.split_whitespace().next())
            .next()
            .map(str::to_owned)
            .with_context(|| format!("{}/go.mod does not require {}", self.folder, self.module))
    }

    fn linker_flags(&self, version: &str) -> String {
        let mut flags = "-s -w".to_owned();
        for variable in self.versions {
            flags += &format!(" -X {variable}{version}");
        }
        if self.module == "k8s.io/kubernetes" {
            let mut numbers = version.split('.');
            for name in ["gitMajor", "gitMinor"] {
                let number = numbers.next().unwrap_or_default();
                flags += &format!(" -X k8s.io/component-base/version.{name}={number}");
            }
        }
        flags
    }
}

/// The path of a part, built if it is not there yet.
pub fn part(part: Part) -> Result<PathBuf> {
    static DONE: Mutex<BTreeMap<Part, PathBuf>> = Mutex::new(BTreeMap::new());
    // Held while building: within one process, one build at a time.
    let mut done = DONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(path) = done.get(&part) {
        return Ok(path.clone());
    }
    let path = match part.in_assets() {
        Some(path) if path.exists() => path,
        Some(path) => bail!("KUBEBUILDER_ASSETS is set, but there is no {}", path.display()),
        None => build(part)?,
    };
    done.insert(part, path.clone());
    Ok(path)
}

/// Makes sure that all of these are there, one after the other.
pub fn ensure(parts: &[Part]) -> Result<()> {
    parts.iter().try_for_each(|each| part(*each).map(drop))
}

/// [`ensure`], from asynchronous code.
pub async fn ensure_async(parts: &'static [Part]) -> Result<()> {
    tokio::task::spawn_blocking(|| ensure(parts)).await?
}

/// The folder with Gitea's templates and options, which its binary reads at run time.
pub fn gitea_static_root() -> Result<PathBuf> {
    part(Part::Gitea)?;
    Ok(bin().join("gitea-static"))
}

fn bin() -> PathBuf {
    crate::root().join("target/cluster/bin")
}

fn build(part: Part) -> Result<PathBuf> {
    let recipe = part.recipe();
    let folder = crate::root().join(recipe.folder);
    let read =
        |name: &str| fs::read(folder.join(name)).with_context(|| format!("cannot read {}/{name}", recipe.folder));
    let go_mod = String::from_utf8(read("go.mod")?)?;
    let version = recipe.version(&go_mod)?;
    let linker_flags = recipe.linker_flags(&version);

    let mut hash = Sha256::new();
    hash.update(&go_mod);
    hash.update(read("go.sum")?);
    for source in recipe.sources {
        hash.update(read(source)?);
    }
    hash.update(format!("{} {} {} {linker_flags} {}", recipe.package, recipe.tags, recipe.cgo, go_version(&folder)?));
    let stamp = hex::encode(hash.finalize());

    let bin = bin();
    fs::create_dir_all(&bin)?;
    let output = bin.join(recipe.file);
    let stamp_file = bin.join(format!(".{}.stamp", recipe.file));
    let is_current = || output.exists() && fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp);
    if is_current() {
        return Ok(output);
    }
    let _lock = lock(&bin, recipe.file)?;
    if is_current() {
        return Ok(output);
    }

    let label = format!("{} {version}", recipe.file).trim_end().to_owned();
    let unfinished = bin.join(format!(".{}.new", recipe.file));
    let log = bin.join(format!("../{}.log", recipe.file));
    let started = Instant::now();
    say(&format!("building {label} from source (about {} the first time)", recipe.usually));
    let mut command = Command::new("go");
    command
        .args(["build", "-mod=readonly", "-buildvcs=false", "-tags", recipe.tags, "-ldflags", &linker_flags, "-o"])
        .arg(&unfinished)
        .arg(recipe.package)
        .current_dir(&folder)
        .env("GOWORK", "off")
        .env("CGO_ENABLED", if recipe.cgo { "1" } else { "0" })
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    let mut child = command.spawn().context("cannot start go; it is needed to build the parts of the test world")?;
    let mut next_sign_of_life = Duration::from_secs(10);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() >= next_sign_of_life {
            say(&format!("building {label}: {} s so far", started.elapsed().as_secs()));
            next_sign_of_life += Duration::from_secs(10);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        bail!("building {label} failed after {} s; {}", started.elapsed().as_secs(), log_tail(&log, 30));
    }
    if part == Part::Gitea {
        copy_gitea_static(&folder, &bin.join("gitea-static"))?;
    }
    // A rename, because another process may be running the old one.
    fs::rename(&unfinished, &output)?;
    fs::write(&stamp_file, &stamp)?;
    say(&format!("built {label} in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(output)
}

fn lock(bin: &Path, what: &str) -> Result<File> {
    let lock = File::options().create(true).truncate(false).write(true).open(bin.join(".lock"))?;
    if lock.try_lock().is_err() {
        say(&format!("waiting for another process that is building (for {what})"));
        lock.lock()?;
    }
    Ok(lock)
}

/// The version that go takes in this folder, which go.mod can choose.
fn go_version(folder: &Path) -> Result<String> {
    static VERSIONS: OnceLock<Mutex<BTreeMap<PathBuf, String>>> = OnceLock::new();
    let mut versions = VERSIONS.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(version) = versions.get(folder) {
        return Ok(version.clone());
    }
    let output = Command::new("go")
        .arg("version")
        .current_dir(folder)
        .output()
        .context("cannot run `go version`: Go is needed to build the parts of the test world")?;
    if !output.status.success() {
        bail!("`go version` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    versions.insert(folder.to_owned(), version.clone());
    Ok(version)
}

/// Copies what Gitea reads at run time out of its module, so that Go's module cache may be emptied.
fn copy_gitea_static(folder: &Path, to: &Path) -> Result<()> {
    let output = Command::new("go")
        .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "code.gitea.io/gitea"])
        .current_dir(folder)
        .env("GOWORK", "off")
        .output()?;
    if !output.status.success() {
        bail!("`go list` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let from = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    for name in ["options", "public", "templates"] {
        copy_tree(&from.join(name), &to.join(name))?;
    }
    Ok(())
}

/// Copies a folder with what is in it.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            // Not fs::copy, which would keep the module cache's read-only mode.
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Prints a line at once, past the test runner's capture.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "harness: {line}");
}
