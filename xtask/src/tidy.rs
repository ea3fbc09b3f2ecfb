//! The house rules as a program: dependencies go to lower ranks only, pure crates stay pure, files say what they are.
use anyhow::{Result, bail};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Rank of each of our crates: one may depend only on crates of a lower rank, or on an earlier one of its own.
const RANKS: &[(&str, u8)] = &[
    ("meta", 0),
    ("api", 0),
    ("cel", 1),
    ("patch", 1),
    ("apiextensions", 1),
    ("resources", 1),
    ("view", 1),
    ("volumes", 1),
    ("authz", 2),
    ("flowcontrol", 2),
    ("controllers", 2),
    ("scheduler", 2),
    ("pods", 2),
    ("services", 2),
    ("pki", 3),
    ("store", 3),
    ("registry", 3),
    ("client", 3),
    ("controller-runtime", 3),
    ("container-runtime", 3),
    ("csi", 3),
    ("net", 3),
    ("serving", 3),
    ("streaming", 3),
    ("kube-apiserver", 4),
    ("kube-controller-manager", 4),
    ("kube-scheduler", 4),
    ("kubelet", 4),
    ("kube-proxy", 4),
    ("cluster-dns", 4),
    ("sim", 5),
    ("bench", 5),
    ("timonel", 5),
    ("e2e", 5),
    ("xtask", 5),
];

/// Ranks 0 to 2 decide; these crates act, so they may not appear under them.
const IMPURE: &[&str] = &["tokio", "hyper", "rand", "nix", "libc"];

pub fn run(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    dependencies(root, &mut faults)?;
    first_lines(&root.join("crates"), &mut faults)?;
    for file in crate::codegen::drift(root)? {
        faults.push(format!("crates/api/src/generated/{file} differs from schema/: run make codegen"));
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    if !faults.is_empty() {
        bail!("tidy found {} fault(s)", faults.len());
    }
    Ok(())
}

fn rank(name: &str) -> Option<(usize, u8)> {
    RANKS.iter().position(|(crate_name, _)| *crate_name == name).map(|at| (at, RANKS[at].1))
}

fn dependencies(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((place, own)) = rank(name) else {
            faults.push(format!("crate {name} has no rank: add it to RANKS in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let on = dependency["name"].as_str().unwrap_or_default();
            if let Some((at, theirs)) = rank(on) {
                if theirs > own || (theirs == own && at >= place) {
                    faults.push(format!(
                        "{name} (rank {own}) depends on {on} (rank {theirs}): only lower ranks"
                    ));
                }
            } else if own <= 2 && IMPURE.contains(&on) {
                faults.push(format!("{name} (rank {own}) is pure and may not depend on {on}"));
            }
        }
    }
    Ok(())
}

/// Every file opens with what it decides.
fn first_lines(folder: &Path, faults: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name == "generated" || name == "target") {
                continue;
            }
            first_lines(&path, faults)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            if !text.starts_with("//!") {
                faults.push(format!(
                    "{}: the first line must be a //! that says what the file decides",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}
