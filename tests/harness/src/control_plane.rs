//! A real control plane: etcd, kube-apiserver, kube-controller-manager. On loopback it has no node and no scheduler;
//! [`ControlPlane::start_for_pods`] makes one for a [`cluster`](crate::cluster).

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::build::{self, Part};
use crate::ports::free_port;
use crate::process::{self, Process};
use crate::wait::eventually;

/// Long: a cold disk and two busy cores can take their time. Usually it is ready in a few seconds.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// The controllers that a cluster without nodes needs.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller,\
serviceaccount-token-controller,root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,\
resourcequota-controller,job-controller,deployment-controller,replicaset-controller,endpointslice-controller,\
certificatesigningrequest-signing-controller";

/// What pods need besides.
const POD_CONTROLLERS: &str = "statefulset-controller,daemonset-controller,disruption-controller,endpoints-controller,\
persistentvolume-binder-controller,persistentvolume-protection-controller,persistentvolumeclaim-protection-controller,\
pod-garbage-collector-controller,node-lifecycle-controller,taint-eviction-controller,ttl-after-finished-controller";

/// Where the API server of a cluster with pods is.
#[derive(Debug, Clone)]
pub struct Reachable {
    /// An address of this machine that pods can reach.
    pub address: Ipv4Addr,
    /// The subnet of the Services' addresses.
    pub services: String,
    /// The first of them, which the Service `kubernetes` gets.
    pub first_service: Ipv4Addr,
    /// The node's name, as which its kubelet speaks.
    pub node: String,
}

/// A control plane. Dropping it ends its processes.
#[derive(Debug)]
pub struct ControlPlane {
    kubeconfig: PathBuf,
    folder: PathBuf,
    kubectl: PathBuf,
    /// `None` for an existing cluster.
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    name: String,
    log_dir: PathBuf,
    /// `None`: no pods, everything on loopback.
    reachable: Option<Reachable>,
    port: u16,
    etcd_port: u16,
    /// Never read: they run as long as the control plane does.
    _etcd: Process,
    api_server: Mutex<Option<Process>>,
    controller_manager: Mutex<Option<Process>>,
    scheduler: Mutex<Option<Process>>,
}

impl ControlPlane {
    /// Starts a control plane with its state in `dir/NAME` and its logs in `dir/log`, and waits until it works. With
    /// `BELLHOP_TEST_KUBECONFIG`, uses that cluster instead.
    pub async fn start(dir: &Path, name: &str) -> Result<ControlPlane> {
        crate::http::install_crypto();
        let folder = dir.join(name);
        private_folder(&folder)?;
        if let Some(kubeconfig) = std::env::var_os("BELLHOP_TEST_KUBECONFIG").filter(|path| !path.is_empty()) {
            build::ensure_async(&[Part::Kubectl]).await?;
            let kubectl = build::part(Part::Kubectl)?;
            let control_plane = ControlPlane { kubeconfig: kubeconfig.into(), folder, kubectl, parts: None };
            control_plane.wait_until_it_works(Duration::from_secs(30)).await?;
            return Ok(control_plane);
        }

        ControlPlane::start_own(dir, name, None).await
    }

    /// Starts a control plane with a scheduler, whose API server listens where pods reach it. A node can join it with
    /// [`ControlPlane::kubeconfig_of`] `kubelet` and `kube-proxy`.
    pub async fn start_for_pods(dir: &Path, name: &str, reachable: Reachable) -> Result<ControlPlane> {
        crate::http::install_crypto();
        private_folder(&dir.join(name))?;
        build::ensure_async(&[Part::Scheduler]).await?;
        ControlPlane::start_own(dir, name, Some(reachable)).await
    }

    async fn start_own(dir: &Path, name: &str, reachable: Option<Reachable>) -> Result<ControlPlane> {
        let folder = dir.join(name);
        build::ensure_async(&Part::CONTROL_PLANE).await?;
        process::run({
            let mut certs = Command::new(build::part(Part::Certs)?);
            certs.arg(folder.join("pki"));
            if let Some(reachable) = &reachable {
                certs.args([reachable.address.to_string(), reachable.first_service.to_string()]);
            }
            certs
        })
        .await?;
        let (port, etcd_port) = (free_port()?, free_port()?);
        let kubeconfig = folder.join("kubeconfig");
        let parts = Parts {
            name: name.to_owned(),
            log_dir: dir.join("log"),
            port,
            etcd_port,
            _etcd: start_etcd(&folder, &dir.join("log").join(format!("{name}-etcd.log")), etcd_port)?,
            api_server: Mutex::new(None),
            controller_manager: Mutex::new(None),
            scheduler: Mutex::new(None),
            reachable,
        };
        parts.write_credentials(&folder)?;
        let kubectl = build::part(Part::Kubectl)?;
        let control_plane = ControlPlane { kubeconfig, folder, kubectl, parts: Some(parts) };
        control_plane.start_api_server().await?;
        control_plane.wait_until_it_works(START_TIMEOUT).await?;
        Ok(control_plane)
    }

    /// Whether this is an existing cluster, whose API server cannot be stopped.
    pub fn is_external(&self) -> bool {
        self.parts.is_none()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The kubeconfig of `controller-manager`, `scheduler`, `kubelet` or `kube-proxy`.
    pub fn kubeconfig_of(&self, component: &str) -> PathBuf {
        self.folder.join(format!("{component}.kubeconfig"))
    }

    /// A kubeconfig of somebody else: `user` is what such a file says of a user (`token`, or `client-certificate-data` and
    /// `client-key-data`), `name` is for the file.
    pub fn kubeconfig_for(&self, name: &str, user: serde_json::Value) -> Result<PathBuf> {
        let url = self.url().context("an existing cluster has users of its own")?;
        let path = self.folder.join(format!("{name}.kubeconfig"));
        write_kubeconfig(&path, &self.folder, &url, user)?;
        Ok(path)
    }

    /// Makes the API server pass on what it is asked about the request log to the Bellhop on this machine whose internal
    /// listener has this port, and whose namespace this is. It has to run with `--log-api-service`, and to run on: while
    /// nobody answers, no namespace can be deleted.
    ///
    /// An existing cluster is left alone, because its API server does not reach this machine's loopback.
    pub async fn register_request_log(&self, namespace: &str, port: u16) -> Result<()> {
        if self.is_external() {
            return Ok(());
        }
        let service = serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            // The name that the certificate is for.
            "metadata": {"name": "bellhop-internal", "namespace": namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        });
        let api_service = serde_json::json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1alpha1.log.bellhop.dev"},
            "spec": {
                "group": "log.bellhop.dev", "version": "v1alpha1", "groupPriorityMinimum": 1000, "versionPriority": 10,
                "service": {"name": "bellhop-internal", "namespace": namespace, "port": port},
            },
        });
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [service, api_service]});
        let file = self.folder.join("request-log.json");
        fs::write(&file, list.to_string())?;
        self.apply_file(&file).await?;
        self.kubectl(["wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1alpha1.log.bellhop.dev"])
            .await?;
        Ok(())
    }

    /// The certificate authority's file.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("pki/ca.crt")
    }

    /// `https://ADDRESS:PORT`, the address being loopback if there are no pods; `None` for an existing cluster.
    pub fn url(&self) -> Option<String> {
        self.parts.as_ref().map(Parts::url)
    }

    /// The administrator's client configuration, to be changed before a client is made of it (impersonation, time-outs).
    pub async fn config(&self) -> Result<kube::Config> {
        crate::http::install_crypto();
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
    }

    /// A new client with all rights. It belongs to the runtime that it was made on.
    pub async fn client(&self) -> Result<kube::Client> {
        Ok(kube::Client::try_from(self.config().await?)?)
    }

    /// A kubectl command with all rights, to be run by the caller.
    pub fn kubectl_command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", self.folder.join("kubectl-cache"));
        command
    }

    /// Runs kubectl and returns what it printed; fails with its error message.
    pub async fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        process::run(self.kubectl_command(args)).await
    }

    /// `kubectl apply --server-side` of a file or a folder.
    pub async fn apply_file(&self, path: &Path) -> Result<String> {
        let path = path.as_os_str();
        let args: [&std::ffi::OsStr; 5] =
            ["apply".as_ref(), "--server-side".as_ref(), "--force-conflicts".as_ref(), "-f".as_ref(), path];
        self.kubectl(args).await
    }

    /// Applies a folder of CustomResourceDefinitions and waits until they are served.
    pub async fn apply_crds(&self, folder: &Path) -> Result<()> {
        self.apply_file(folder).await?;
        self.crds_established(folder).await
    }

    /// Waits until a folder of CustomResourceDefinitions, which were applied, is served.
    pub async fn crds_established(&self, folder: &Path) -> Result<()> {
        // kubectl fails on a definition that nobody has looked at yet, which has no conditions at all.
        eventually(Duration::from_secs(60), "the definitions are established", async || {
            let folder = folder.as_os_str();
            let args = ["wait", "--for=condition=Established", "--timeout=30s", "-f"].map(std::ffi::OsStr::new);
            self.kubectl(args.into_iter().chain([folder])).await.map(drop)
        })
        .await
    }

    /// Creates a namespace `PREFIX-xxxxxxxx` and returns its name.
    pub async fn create_namespace(&self, prefix: &str) -> Result<String> {
        let random = Uuid::new_v4().simple().to_string();
        let name = format!("{prefix}-{}", &random[..8]);
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::all(self.client().await?).create(&PostParams::default(), &namespace).await?;
        Ok(name)
    }

    /// Kills the API server. etcd and the data stay.
    pub async fn stop_api_server(&self) -> Result<()> {
        let parts = self.parts.as_ref().context("the API server of an existing cluster is not ours to stop")?;
        // Killed, because a graceful stop waits a minute for watches to end.
        parts.api_server.lock().await.take();
        Ok(())
    }

    /// Starts the API server on the same port and the same etcd, and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        let parts = self.parts.as_ref().context("the API server of an existing cluster is not ours to start")?;
        let mut api_server = parts.api_server.lock().await;
        if api_server.is_none() {
            let mut process = parts.start_api_server(&self.folder)?;
            let client = self.client().await?;
            process
                .wait_ready(START_TIMEOUT, async || {
                    let request = axum::http::Request::get("/readyz").body(Vec::new())?;
                    client.request_text(request).await?;
                    Ok(())
                })
                .await?;
            *api_server = Some(process);
        }
        // Components that elect a leader end themselves when an outage outlasts their lease, and a kubelet starts them
        // again. Here nobody else can take the lease, so without this they would go on where they stood: the scheduler
        // with a memory that contradicts what it is told, the controllers with watches that are resumed a minute later.
        restart(&parts.controller_manager, || parts.start_controller_manager(&self.folder)).await?;
        if parts.reachable.is_some() {
            restart(&parts.scheduler, || parts.start_scheduler(&self.folder)).await?;
        }
        Ok(())
    }

    /// Ready, and a controller has acted.
    async fn wait_until_it_works(&self, timeout: Duration) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
        let waited = eventually(timeout, "the service account `default` in the namespace `default`", async || {
            accounts.get("default").await?;
            Ok(())
        })
        .await;
        let Err(error) = waited else { return Ok(()) };
        match &self.parts {
            Some(parts) => match &*parts.controller_manager.lock().await {
                Some(manager) => Err(error.context(manager.log_tail(30))),
                None => Err(error),
            },
            None => Err(error.context(format!("the cluster of {} is not usable", self.kubeconfig.display()))),
        }
    }
}

/// Whether a process was not started yet, or has ended.
/// Ends the process that is there, if there is one, and starts it anew.
async fn restart(place: &Mutex<Option<Process>>, start: impl FnOnce() -> Result<Process>) -> Result<()> {
    let mut place = place.lock().await;
    if let Some(mut old) = place.take() {
        old.kill9();
    }
    *place = Some(start()?);
    Ok(())
}

fn start_etcd(folder: &Path, log: &Path, port: u16) -> Result<Process> {
    let client_url = format!("http://127.0.0.1:{port}");
    let peer_url = format!("http://127.0.0.1:{}", free_port()?);
    let mut command = Command::new(build::part(Part::Etcd)?);
    command
        .arg("--name=default")
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls={client_url}"))
        .arg(format!("--advertise-client-urls={client_url}"))
        .arg(format!("--listen-peer-urls={peer_url}"))
        .arg(format!("--initial-advertise-peer-urls={peer_url}"))
        .arg(format!("--initial-cluster=default={peer_url}"))
        // The data is for one run.
        .arg("--unsafe-no-fsync")
        .arg("--log-level=warn");
    Process::spawn("etcd", &command, log)
}

impl Parts {
    fn address(&self) -> IpAddr {
        self.reachable.as_ref().map_or(Ipv4Addr::LOCALHOST, |reachable| reachable.address).into()
    }

    fn url(&self) -> String {
        format!("https://{}:{}", self.address(), self.port)
    }

    /// Tokens for everybody who speaks to the API server, and kubeconfigs with them.
    fn write_credentials(&self, folder: &Path) -> Result<()> {
        let mut users = vec![
            ("kubeconfig".to_owned(), "admin".to_owned(), "system:masters"),
            ("controller-manager.kubeconfig".into(), "system:kube-controller-manager".into(), "system:authenticated"),
        ];
        if let Some(reachable) = &self.reachable {
            users.push(("scheduler.kubeconfig".into(), "system:kube-scheduler".into(), "system:authenticated"));
            users.push(("kube-proxy.kubeconfig".into(), "system:kube-proxy".into(), "system:authenticated"));
            users.push(("kubelet.kubeconfig".into(), format!("system:node:{}", reachable.node), "system:nodes"));
        }
        let mut tokens = String::new();
        for (file, user, group) in users {
            let token = Uuid::new_v4().simple().to_string();
            tokens += &format!("{token},{user},{user},\"{group}\"\n");
            write_kubeconfig(&folder.join(file), folder, &self.url(), serde_json::json!({"token": token}))?;
        }
        private_file(&folder.join("tokens.csv"), &tokens)
    }

    fn start_api_server(&self, folder: &Path) -> Result<Process> {
        let pki = |name: &str| folder.join("pki").join(name).display().to_string();
        let mut command = Command::new(build::part(Part::ApiServer)?);
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--bind-address={}", self.address()))
            .arg(format!("--advertise-address={}", self.address()))
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--tls-cert-file={}", pki("apiserver.crt")))
            .arg(format!("--tls-private-key-file={}", pki("apiserver.key")))
            .arg(format!("--token-auth-file={}", folder.join("tokens.csv").display()))
            .arg(format!("--client-ca-file={}", pki("ca.crt")))
            .arg("--authorization-mode=Node,RBAC")
            .arg("--enable-admission-plugins=NodeRestriction")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", pki("service-account.key")))
            .arg(format!("--service-account-signing-key-file={}", pki("service-account.key")))
            // For the request log, which is an aggregated API.
            .arg(format!("--proxy-client-cert-file={}", pki("front-proxy.crt")))
            .arg(format!("--proxy-client-key-file={}", pki("front-proxy.key")))
            .arg(format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")))
            .arg("--requestheader-allowed-names=front-proxy")
            .arg("--requestheader-username-headers=X-Remote-User")
            .arg("--requestheader-group-headers=X-Remote-Group")
            .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
            .arg("--profiling=false");
        match &self.reachable {
            Some(reachable) => command
                .arg(format!("--service-cluster-ip-range={}", reachable.services))
                .arg(format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")))
                .arg(format!("--kubelet-client-key={}", pki("kubelet-client.key")))
                .arg("--kubelet-preferred-address-types=InternalIP"),
            None => command
                .arg("--service-cluster-ip-range=10.0.0.0/16")
                // A loopback address cannot be an endpoint of the Service `kubernetes`.
                .arg("--endpoint-reconciler-type=none"),
        };
        Process::spawn("kube-apiserver", &command, &self.log("apiserver"))
    }

    fn start_controller_manager(&self, folder: &Path) -> Result<Process> {
        let kubeconfig = folder.join("controller-manager.kubeconfig").display().to_string();
        let mut controllers = CONTROLLERS.to_owned();
        if self.reachable.is_some() {
            controllers += ",";
            controllers += POD_CONTROLLERS;
        }
        let mut command = Command::new(build::part(Part::ControllerManager)?);
        command
            .arg(format!("--kubeconfig={kubeconfig}"))
            .arg("--leader-elect=false")
            .arg("--use-service-account-credentials=true")
            .arg(format!("--controllers={controllers}"))
            .arg(format!("--service-account-private-key-file={}", folder.join("pki/service-account.key").display()))
            .arg(format!("--root-ca-file={}", folder.join("pki/ca.crt").display()))
            .arg(format!("--cluster-signing-cert-file={}", folder.join("pki/ca.crt").display()))
            .arg(format!("--cluster-signing-key-file={}", folder.join("pki/ca.key").display()))
            .arg("--bind-address=127.0.0.1")
            // It serves nothing that anybody asks for.
            .arg("--secure-port=0")
            .arg("--kube-api-qps=200")
            .arg("--kube-api-burst=400");
        Process::spawn("kube-controller-manager", &command, &self.log("controller-manager"))
    }

    fn start_scheduler(&self, folder: &Path) -> Result<Process> {
        let mut command = Command::new(build::part(Part::Scheduler)?);
        command
            .arg(format!("--kubeconfig={}", folder.join("scheduler.kubeconfig").display()))
            .arg("--leader-elect=false")
            // It serves nothing that anybody asks for.
            .arg("--secure-port=0");
        Process::spawn("kube-scheduler", &command, &self.log("scheduler"))
    }

    fn log(&self, part: &str) -> PathBuf {
        self.log_dir.join(format!("{}-{part}.log", self.name))
    }
}

fn write_kubeconfig(path: &Path, folder: &Path, url: &str, user: serde_json::Value) -> Result<()> {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(fs::read(folder.join("pki/ca.crt"))?);
    // JSON is YAML.
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{
            "name": "test",
            "cluster": {"server": url, "certificate-authority-data": ca},
        }],
        "users": [{"name": "test", "user": user}],
    });
    private_file(path, &serde_json::to_string_pretty(&config)?)
}

pub(crate) fn private_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

pub(crate) fn private_file(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    if let Err(error) = file.write_all(content.as_bytes()) {
        bail!("cannot write {}: {error}", path.display());
    }
    Ok(())
}
