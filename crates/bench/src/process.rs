//! What a server's processes cost: processor time and memory, from /proc.

use anyhow::{Context, Result};

/// The processes of one server.
#[derive(Clone, Debug, Default)]
pub struct Processes(Vec<u32>);

/// Memory of all processes together, in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub resident_mib: f64,
    /// The most it has been since `forget_peak`.
    pub peak_mib: f64,
}

impl Processes {
    /// From a list like `10,11`.
    pub fn parse(list: &str) -> Result<Self> {
        let pids: Result<Vec<u32>, _> =
            list.split(',').map(str::trim).filter(|pid| !pid.is_empty()).map(str::parse).collect();
        let processes =
            Processes(pids.with_context(|| format!("--server-pid {list:?} is no list of process ids"))?);
        for pid in &processes.0 {
            cpu_micros(*pid).with_context(|| format!("--server-pid: no process {pid} can be read"))?;
        }
        Ok(processes)
    }

    /// Those of these ids.
    pub fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        Processes(pids.into_iter().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Processor time used so far, user and system, in microseconds; steps of 10,000.
    pub fn cpu_micros(&self) -> u64 {
        self.0.iter().filter_map(|pid| cpu_micros(*pid)).sum()
    }

    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in &self.0 {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
                number.unwrap_or(0.0) / 1024.0
            };
            memory.resident_mib += field("VmRSS:");
            memory.peak_mib += field("VmHWM:");
        }
        memory
    }

    /// Sets the peak back to what is resident now, where the kernel lets us.
    pub fn forget_peak(&self) {
        for pid in &self.0 {
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }
}

fn cpu_micros(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks; what follows it does not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // USER_HZ is 100 on every Linux that has a /proc.
    Some(ticks * 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_costs_are_read() {
        let ours = Processes::parse(&std::process::id().to_string()).unwrap();
        let memory = ours.memory();
        assert!(memory.resident_mib > 0.5 && memory.peak_mib >= memory.resident_mib * 0.9, "{memory:?}");
        assert!(Processes::parse("none").is_err());
        assert!(Processes::parse("4194304000").is_err());
    }
}
