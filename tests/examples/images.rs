//! Writes the images of the end-to-end tests to files, to try things by hand: `cargo run -p e2e --example images DIR`.

use e2e::images;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    std::fs::write(format!("{folder}/busybox.tar"), images::busybox(images::BUSYBOX)?)?;
    std::fs::write(format!("{folder}/testserver.tar"), images::server(images::SERVER)?)?;
    std::fs::write(format!("{folder}/testserver-next.tar"), images::server(images::SERVER_NEXT)?)?;
    Ok(())
}
