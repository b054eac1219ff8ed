//! The settings of the node's programs. Paths are those that the node sees.

use serde_json::json;

use super::{NAME, Network, PAUSE_IMAGE, STATE};

pub(super) fn containerd(plugins: &str, snapshotter: &str) -> String {
    format!(
        r#"version = 2
root = "{STATE}/containerd"
state = "/run/containerd"
# These want file systems that are not there, or write elsewhere.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# A machine that is itself a container may not raise a score.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{STATE}/cni"
"#
    )
}

/// Every pod has a cable to the node, and the node routes. A bridge would need a kernel module for Services that lead
/// back to a pod on the same bridge.
pub(super) fn cni(network: &Network) -> String {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni",
                "ranges": [[{"subnet": network.pods()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

pub(super) fn kubelet(network: &Network) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": format!("{STATE}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", network.name()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "clusterDNS": [network.dns()],
        "clusterDomain": "cluster.local",
        "resolvConf": format!("{STATE}/resolv.conf"),
        "podLogsDir": "/run/podlogs",
        "volumePluginDir": format!("{STATE}/volume-plugins"),
        // A full disk of this machine is none of the pods' business, and images could not be pulled again.
        "localStorageCapacityIsolation": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "containerLogMaxSize": "20Mi",
        "containerLogMaxFiles": 2,
    })
    .to_string()
}

pub(super) fn kube_proxy(network: &Network) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": NAME,
        "clientConnection": {"kubeconfig": format!("{STATE}/kube-proxy.kubeconfig")},
        "clusterCIDR": network.pods(),
        // Limits of the whole machine, which a network namespace cannot set.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
    .to_string()
}
