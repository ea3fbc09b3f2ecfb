//! Control groups of pods, v1 (also hybrid) and v2: making them, their limits, their use, taking them away.
//!
//! A group is named by its path below the hierarchy's root, such as `/kubepods/burstable/pod<uid>`.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// The v1 hierarchies in which pods get a group; those that the machine lacks are skipped.
const V1: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "devices",
    "freezer",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "systemd",
    "unified",
];

/// Limits of a group; `None` leaves the kernel's value alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: Option<u64>,
    /// Microseconds per period of 100 ms; -1 is no limit.
    pub cpu_quota: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub pids: Option<i64>,
}

/// What a group and those below it have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanoseconds: u64,
    pub memory_bytes: u64,
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
}

/// Whether the machine has the one hierarchy of v2.
pub fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn folder(controller: &str, group: &str) -> PathBuf {
    let group = group.trim_start_matches('/');
    if is_v2() { Path::new(ROOT).join(group) } else { Path::new(ROOT).join(controller).join(group) }
}

/// Whether the kernel can bound swap of the groups below this one; without, a bound must not be asked for.
pub fn bounds_swap(group: &str) -> bool {
    let file = if is_v2() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    folder("memory", group).join(file).exists()
}

/// Makes a group with its ancestors and sets its limits.
pub fn create(group: &str, limits: Limits) -> std::io::Result<()> {
    if is_v2() {
        let mut path = PathBuf::from(ROOT);
        for part in group.trim_matches('/').split('/') {
            enable_controllers(&path);
            path.push(part);
            std::fs::create_dir_all(&path)?;
        }
        enable_controllers(&path);
    } else {
        for controller in ["cpu", "cpuacct", "memory", "pids"] {
            if Path::new(ROOT).join(controller).is_dir() {
                std::fs::create_dir_all(folder(controller, group))?;
            }
        }
    }
    apply(group, limits)
}

/// Hands the controllers that a group has on to its children; the kernel refuses those it does not have.
fn enable_controllers(path: &Path) {
    for controller in ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"] {
        let _ = std::fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn apply(group: &str, limits: Limits) -> std::io::Result<()> {
    let set = |controller: &str, file: &str, value: String| {
        let path = folder(controller, group).join(file);
        if path.exists() { std::fs::write(path, value) } else { Ok(()) }
    };
    let v2 = is_v2();
    if let Some(shares) = limits.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        if v2 {
            set("cpu", "cpu.weight", weight(shares).to_string())?;
        } else {
            set("cpu", "cpu.shares", shares.to_string())?;
        }
    }
    if let Some(quota) = limits.cpu_quota {
        if v2 {
            let quota = if quota < 0 { "max".to_string() } else { quota.to_string() };
            set("cpu", "cpu.max", format!("{quota} 100000"))?;
        } else {
            set("cpu", "cpu.cfs_quota_us", quota.to_string())?;
        }
    }
    if let Some(bytes) = limits.memory_bytes {
        let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
        set("memory", file, if v2 && bytes < 0 { "max".into() } else { bytes.to_string() })?;
    }
    if let Some(count) = limits.pids {
        set("pids", "pids.max", if count < 0 { "max".into() } else { count.to_string() })?;
    }
    Ok(())
}

/// Shares of v1 (2 to 262144) as a weight of v2 (1 to 10000), by the formula that runc uses.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Every process in a group and below it.
pub fn pids(group: &str) -> Vec<i32> {
    let mut found = vec![];
    for controller in if is_v2() { &[""][..] } else { V1 } {
        walk(&folder(controller, group), &mut |path| {
            let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Removes a group and those below it, where empty of processes.
pub fn remove(group: &str) {
    for controller in if is_v2() { &[""][..] } else { V1 } {
        walk(&folder(controller, group), &mut |path| {
            let _ = std::fs::remove_dir(path);
        });
    }
}

/// The groups directly below one.
pub fn children(group: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder("memory", group)).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Children before their parents.
fn walk(path: &Path, each: &mut dyn FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), each);
        }
    }
    each(path);
}

/// Use of a group; zeros where the kernel does not say.
pub fn usage(group: &str) -> Usage {
    let number = |controller: &str, file: &str| {
        let text = std::fs::read_to_string(folder(controller, group).join(file)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let stat = std::fs::read_to_string(folder("memory", group).join("memory.stat")).unwrap_or_default();
    let key = |name: &str| keyed(&stat, name);
    let processes = pids_count(group);
    if is_v2() {
        let cpu = std::fs::read_to_string(folder("", group).join("cpu.stat")).unwrap_or_default();
        let memory_bytes = number("memory", "memory.current");
        Usage {
            cpu_nanoseconds: keyed(&cpu, "usage_usec") * 1000,
            memory_bytes,
            working_set_bytes: memory_bytes.saturating_sub(key("inactive_file")),
            rss_bytes: key("anon"),
            page_faults: key("pgfault"),
            major_page_faults: key("pgmajfault"),
            processes,
        }
    } else {
        let memory_bytes = number("memory", "memory.usage_in_bytes");
        Usage {
            cpu_nanoseconds: number("cpuacct", "cpuacct.usage"),
            memory_bytes,
            working_set_bytes: memory_bytes.saturating_sub(key("total_inactive_file")),
            rss_bytes: key("total_rss"),
            page_faults: key("total_pgfault"),
            major_page_faults: key("total_pgmajfault"),
            processes,
        }
    }
}

fn pids_count(group: &str) -> u64 {
    let text = std::fs::read_to_string(folder("pids", group).join("pids.current")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn keyed(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_over_the_whole_range() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10_000]);
    }

    #[test]
    fn keys_are_whole_words() {
        assert_eq!(keyed("total_rss_huge 1\ntotal_rss 2\n", "total_rss"), 2);
    }
}
