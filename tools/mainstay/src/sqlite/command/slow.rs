//! `SET` of what has values of its own: the timeouts, and which statements are logged for having taken long.

use mainstay::server::pg::SqlError;

use super::super::policy;
use super::super::session::SlowSetting;
use super::{Command, Timeout, Words};

impl Words<'_> {
    pub(super) fn set_timeout(&mut self, timeout: Timeout, is_local: bool) -> Result<Command, SqlError> {
        self.advance();
        if !self.take("TO") {
            self.symbol('=')?;
        }
        let value = if self.take("DEFAULT") {
            None
        } else {
            let negative = self.symbol('-').is_ok();
            let value = self.value()?;
            Some(timeout.parse(&if negative { format!("-{value}") } else { value })?)
        };
        self.end()?;
        Ok(Command::SetTimeout { timeout, value, is_local, tag: "SET" })
    }

    pub(super) fn set_slow(&mut self, setting: SlowSetting, local: bool) -> Result<Command, SqlError> {
        if local {
            return Err(policy::refused("SET LOCAL is not supported for what is logged"));
        }
        self.advance();
        if !self.take("TO") {
            self.symbol('=')?;
        }
        let value = if self.take("DEFAULT") {
            None
        } else {
            let sign = if self.symbol('-').is_ok() { "-" } else { "" };
            Some(format!("{sign}{}", self.value()?))
        };
        self.end()?;
        Ok(Command::SetSlow { setting, value, tag: "SET" })
    }
}
