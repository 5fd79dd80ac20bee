// SPDX-License-Identifier: AGPL-3.0-or-later
//! Several named assertions in one test: all failures are reported, not only the first.

pub struct Cases {
    title: &'static str,
    count: usize,
    failed: Vec<String>,
}

impl Cases {
    pub fn of(title: &'static str) -> Cases {
        Cases { title, count: 0, failed: Vec::new() }
    }

    pub fn is<T: PartialEq + std::fmt::Debug>(&mut self, claim: &str, found: T, expected: T) {
        self.count += 1;
        if found != expected {
            self.failed.push(format!("{claim}: {found:?} instead of {expected:?}"));
        }
    }

    pub fn holds(&mut self, claim: &str, holds: bool) {
        self.is(claim, holds, true);
    }

    pub fn end(self) {
        let passed = self.count - self.failed.len();
        println!("{}: {passed}/{} cases", self.title, self.count);
        assert_eq!(self.failed, Vec::<String>::new(), "{}", self.title);
    }
}
