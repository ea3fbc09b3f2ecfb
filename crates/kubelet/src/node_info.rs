//! Facts of the machine: capacity, identity, versions.

use crate::Settings;
use api::core::v1::NodeSystemInfo;
use meta::Quantity;
use meta::quantity::Format;
use std::collections::BTreeMap;

/// What does not change while the machine is up.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub swap_bytes: i64,
    pub disk_bytes: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

impl Machine {
    pub fn look(settings: &Settings) -> Self {
        let memory = read("/proc/meminfo");
        let kilobytes = |name: &str| -> i64 {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let release = read("/etc/os-release");
        let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as i64),
            memory_bytes: kilobytes("MemTotal") * 1024,
            swap_bytes: kilobytes("SwapTotal") * 1024,
            disk_bytes: disk(settings).0,
            machine_id: read("/etc/machine-id"),
            system_uuid: Some(read("/sys/class/dmi/id/product_uuid"))
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| read("/etc/machine-id")),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image: pretty.map_or("Linux".into(), |name| name.trim_matches('"').to_string()),
        }
    }

    pub fn capacity(&self, settings: &Settings) -> BTreeMap<String, Quantity> {
        let bytes = |value| Quantity::from_units(value, Format::BinarySi);
        BTreeMap::from([
            ("cpu".into(), Quantity::from_units(self.cpus, Format::DecimalSi)),
            ("memory".into(), kibibytes(self.memory_bytes)),
            ("ephemeral-storage".into(), kibibytes(self.disk_bytes)),
            ("pods".into(), Quantity::from_units(settings.max_pods, Format::DecimalSi)),
            ("hugepages-2Mi".into(), bytes(0)),
            ("hugepages-1Gi".into(), bytes(0)),
        ])
    }

    /// Capacity less what is reserved; upstream keeps 100 MiB of memory and a tenth of the disk against eviction.
    pub fn allocatable(&self, settings: &Settings) -> BTreeMap<String, Quantity> {
        let mut left = self.capacity(settings);
        for (name, amount) in &settings.reserved {
            if let Some(own) = left.get_mut(name) {
                *own = own.minus(*amount);
            }
        }
        let threshold = Quantity::from_units(100 << 20, Format::BinarySi);
        if let Some(memory) = left.get_mut("memory") {
            *memory = memory.minus(threshold);
        }
        if let Some(disk) = left.get_mut("ephemeral-storage") {
            *disk = Quantity::from_units(disk.value() / 10 * 9, Format::DecimalSi);
        }
        left
    }

    pub fn system_info(&self, runtime_version: &str) -> NodeSystemInfo {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        NodeSystemInfo {
            machine_id: self.machine_id.clone(),
            system_uuid: self.system_uuid.clone(),
            boot_id: self.boot_id.clone(),
            kernel_version: self.kernel.clone(),
            os_image: self.os_image.clone(),
            container_runtime_version: runtime_version.into(),
            kubelet_version: crate::KUBERNETES_VERSION.into(),
            kube_proxy_version: String::new(),
            operating_system: "linux".into(),
            architecture: architecture.into(),
            swap: Some(Box::new(api::core::v1::NodeSwapStatus { capacity: Some(self.swap_bytes) })),
        }
    }
}

/// In `Ki`, as upstream prints memory.
fn kibibytes(bytes: i64) -> Quantity {
    Quantity::parse(&format!("{}Ki", bytes / 1024)).unwrap_or_default()
}

/// Total and free bytes of the file system that holds the kubelet's folder.
pub fn disk(settings: &Settings) -> (i64, i64) {
    match nix::sys::statvfs::statvfs(&settings.root_dir) {
        Ok(stat) => {
            let unit = stat.fragment_size() as i64;
            (stat.blocks() as i64 * unit, stat.blocks_available() as i64 * unit)
        }
        Err(_) => (0, 0),
    }
}

pub fn memory_available() -> i64 {
    let memory = read("/proc/meminfo");
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or(0) * 1024
}
