//! How many transactions the machine has memory for.

use std::path::Path;

use sipbox_core::account::UNIT;

/// Where nothing is known of the machine.
const UNKNOWN: u64 = 1 << 30;
const FEW: u64 = 10_000;
const MANY: u64 = 1 << 24;

/// What a quarter of the memory is good for, a transaction being taken for [`UNIT`]
/// bytes: what has begun may need as much again, and the rest is for bindings, policies
/// and the system.
pub(crate) fn transactions() -> u32 {
    fit(memory())
}

fn fit(bytes: u64) -> u32 {
    let unit = u64::try_from(UNIT).unwrap_or(u64::MAX);
    u32::try_from((bytes / 4 / unit).clamp(FEW, MANY)).unwrap_or(u32::MAX)
}

/// The memory that this process may use: the machine's, or less in a container.
fn memory() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text))
        .unwrap_or(UNKNOWN);
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = folders(&own).filter_map(|folder| {
        let limit = Path::new("/sys/fs/cgroup").join(folder).join("memory.max");
        std::fs::read_to_string(limit).ok()?.trim().parse().ok()
    });
    limits.fold(machine, u64::min)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The control group of version 2 that this process is in, and those around it.
fn folders(cgroup: &str) -> impl Iterator<Item = &Path> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::/"));
    own.into_iter().flat_map(|own| Path::new(own).ancestors())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_memory_is_for_transactions_and_what_follows_from_them() {
        const GIB: u64 = 1 << 30;
        for (memory, transactions) in [(GIB, 65_536), (24 * GIB, 1_572_864), (0, 10_000)] {
            assert_eq!(fit(memory), transactions);
        }
        assert_eq!(fit(u64::MAX), 16_777_216);
    }

    #[test]
    fn memory_is_read_where_linux_tells_it() {
        let text = "MemTotal:       24684012 kB\nMemFree:  1 kB\n";
        assert_eq!(total(text), Some(24_684_012 * 1024));
        assert_eq!(total("nothing"), None);
        let folders: Vec<_> = folders("1:cpu:/x\n0::/system.slice/sipbox.service\n").collect();
        let expected = ["system.slice/sipbox.service", "system.slice", ""];
        assert_eq!(folders, expected.map(Path::new));
        assert!(memory() > 0);
    }
}
