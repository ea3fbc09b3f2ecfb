//! Chores of the workspace: `codegen` writes `crates/api/src/generated` from `schema/`, `tidy` checks the house rules.
mod codegen;
mod tidy;

fn main() -> anyhow::Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match std::env::args().nth(1).as_deref() {
        Some("codegen") => codegen::run(&root),
        Some("tidy") => tidy::run(&root),
        other => anyhow::bail!("unknown task {other:?}: expected codegen or tidy"),
    }
}
