//! The kernel's accounting of a process: CPU seconds and resident memory.

use std::fs;
use std::io;

/// CPU seconds that a process has used, user and system.
///
/// # Errors
/// When the process is gone.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces; fields are counted behind its closing bracket: utime and stime are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

/// Resident memory in MiB: now, and the most there ever was.
///
/// # Errors
/// When the process is gone.
pub fn memory_mib(pid: u32) -> io::Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let read = |key: &str| {
        let line = status.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    Ok((read("VmRSS:").unwrap_or_default() / 1024.0, read("VmHWM:").unwrap_or_default() / 1024.0))
}
