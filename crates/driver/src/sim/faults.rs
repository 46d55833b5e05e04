//! What goes wrong, and when.
use super::drivers::DriverEvent;
use super::world::{Happening, World};
use crate::coordinator::Event;

pub(super) enum Fault {
    Any,
    StartDriver,
    StartExecutor(usize),
}

impl World {
    /// The next fault comes after a while.
    pub(super) fn plan_fault(&mut self) {
        let delay = self.random.range(100, 3_000);
        self.after(delay, Happening::Fault(Fault::Any));
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::StartDriver => {
                if self.drivers.is_empty() {
                    self.start_driver();
                }
            }
            Fault::StartExecutor(name) => {
                if !self.executors[name].alive {
                    self.start_executor(name);
                }
            }
            Fault::Any if self.faults() => {
                self.any();
                self.plan_fault();
            }
            Fault::Any => {}
        }
    }

    fn any(&mut self) {
        let drivers: Vec<u32> = self.drivers.keys().copied().collect();
        let driver = drivers.get(self.random.range(0, drivers.len() as i64) as usize).copied();
        let executor = self.random.range(0, self.executors.len() as i64) as usize;
        match (self.random.range(0, 100), driver) {
            (0..20, Some(driver)) => {
                self.note(|| format!("driver {driver} crashes"));
                self.stats.driver_crashes += 1;
                self.drivers.remove(&driver);
                self.executors.iter_mut().for_each(|e| {
                    e.links.remove(&driver);
                });
                self.ensure_driver();
            }
            (20..40, Some(driver)) => {
                if let Some(node) = self.drivers.get_mut(&driver).filter(|d| !d.frozen) {
                    node.frozen = true;
                    self.stats.freezes += 1;
                    self.note(|| format!("driver {driver} freezes"));
                    let delay = self.random.range(200, 12_000);
                    self.after(delay, Happening::Driver(driver, DriverEvent::Wake));
                }
            }
            (40..55, Some(_)) if drivers.len() < 3 => {
                self.stats.second_leaders += 1;
                self.start_driver();
            }
            (55..80, _) => self.crash_executor(executor),
            (80..93, Some(driver)) => {
                if self.executors[executor].links.contains_key(&driver) {
                    self.stats.cut_links += 1;
                    self.note(|| format!("the link between e{executor} and driver {driver} breaks"));
                    self.cut(executor, driver);
                }
            }
            (93..97, Some(driver)) => {
                self.after(1, Happening::Driver(driver, DriverEvent::Other(Event::StopRequested)))
            }
            (_, _) => (0..self.executors.len()).for_each(|name| self.crash_executor(name)),
        }
    }
}
