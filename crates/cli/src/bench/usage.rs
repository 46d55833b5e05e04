//! What this process has used.
use std::time::Duration;

/// User and system time of all threads since the process started.
#[must_use]
pub fn cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole rusage, for which all zeros are a valid value; a call that fails leaves it so.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let of = |t: libc::timeval| Duration::new(t.tv_sec.unsigned_abs(), t.tv_usec.unsigned_abs() as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Largest resident memory in bytes; 0 where the system does not tell. Not `ru_maxrss`, which a process inherits from its parent.
#[must_use]
pub fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let before = cpu();
        let mut block = vec![0u8; 64 << 20];
        while cpu() < before + Duration::from_millis(20) {
            block.iter_mut().for_each(|b| *b = b.wrapping_add(1));
        }
        std::hint::black_box(&block);
        assert!(peak_rss() >= 64 << 20);
    }
}
