//! A bar while a case runs, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far a case is. Where standard error is no terminal nothing is shown.
pub struct Progress(ProgressBar);

impl Progress {
    /// `total` 0 stands for an end that is not known.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let template = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
        let open = "{msg} {spinner} {human_pos} {per_sec} {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(if total == 0 { open } else { template }) {
            bar.set_style(style);
        }
        bar.set_message(what.to_string());
        Progress(bar)
    }

    /// For those who do the work; the bar goes when `self` does.
    pub fn handle(&self) -> ProgressBar {
        self.0.clone()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
