//! What a cluster may leave on a machine: processes, mounts, namespaces, links, rules, cgroups, files.

use crate::output;
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Command;

/// A picture of the machine; two of them can be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    facts: BTreeSet<String>,
}

impl Machine {
    pub fn look() -> Result<Machine> {
        let mut facts = BTreeSet::new();
        for line in std::fs::read_to_string("/proc/mounts")?.lines() {
            let mount = line.split(' ').nth(1).unwrap_or_default();
            facts.insert(format!("mount {mount}"));
        }
        for line in output(Command::new("ip").args(["-o", "link"]))?.lines() {
            let name = line.split(": ").nth(1).unwrap_or_default().split('@').next().unwrap_or_default();
            facts.insert(format!("link {name}"));
        }
        for line in output(Command::new("ip").args(["-o", "addr"]))?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            facts.insert(format!("address {} {}", words.get(1).unwrap_or(&""), words.get(3).unwrap_or(&"")));
        }
        for line in output(Command::new("ip").args(["route", "show", "table", "all"]))?.lines() {
            facts.insert(format!("route {}", line.trim()));
        }
        for line in output(Command::new("ip").args(["netns", "list"]))?.lines() {
            facts.insert(format!("netns {line}"));
        }
        for line in output(Command::new("nft").args(["list", "tables"]))?.lines() {
            facts.insert(format!("nftables {line}"));
        }
        for folder in ["/var/lib", "/run", "/run/netns", "/var/log", "/etc/cni", "/opt/cni", "/var/run"] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                facts.insert(format!("file {}", entry.path().display()));
            }
        }
        cgroups(&mut facts);
        processes(&mut facts);
        Ok(Machine { facts })
    }

    /// What `after` has and this has not.
    pub fn added(&self, after: &Machine) -> String {
        let mut text = String::new();
        for fact in after.facts.difference(&self.facts) {
            let _ = writeln!(text, "{fact}");
        }
        text
    }
}

fn cgroups(facts: &mut BTreeSet<String>) {
    let mut folders = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                facts.insert(format!("cgroup {}", entry.path().display()));
                folders.push(entry.path());
            }
        }
    }
}

/// Programs that only a cluster starts.
fn processes(facts: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // A process that has ended and waits for its parent to notice is nothing left behind.
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')) {
            continue;
        }
        let name = name.trim();
        if ["timonel", "containerd", "containerd-shim", "runc", "pause"]
            .iter()
            .any(|ours| name.starts_with(ours))
        {
            facts.insert(format!("process {name} {}", entry.file_name().to_string_lossy()));
        }
    }
}
