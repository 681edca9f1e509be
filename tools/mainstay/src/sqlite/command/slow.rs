//! `SET` of what has values of its own: the timeouts, and which statements are logged for having taken long.

use mainstay::server::pg::SqlError;

use super::super::policy;
use super::super::session::SlowSetting;
use super::{Command, Timeout, Words};

impl Words<'_> {
    pub(super) fn set_timeout(&mut self, timeout: Timeout, is_local: bool) -> Result<Command, SqlError> {
        let text = self.assigned_or_default()?;
        let value = text.map(|text| timeout.parse(&text)).transpose()?;
        self.end()?;
        Ok(Command::SetTimeout { timeout, value, is_local, tag: "SET" })
    }

    pub(super) fn set_slow(&mut self, setting: SlowSetting, local: bool) -> Result<Command, SqlError> {
        if local {
            return Err(policy::refused("SET LOCAL is not supported for what is logged"));
        }
        let value = self.assigned_or_default()?;
        self.end()?;
        Ok(Command::SetSlow { setting, value, tag: "SET" })
    }

    /// What is assigned to the name that is next: a value with its sign, or nothing for DEFAULT.
    fn assigned_or_default(&mut self) -> Result<Option<String>, SqlError> {
        self.assignment()?;
        if self.take("DEFAULT") {
            return Ok(None);
        }
        let sign = if self.symbol('-').is_ok() { "-" } else { "" };
        Ok(Some(format!("{sign}{}", self.value()?)))
    }
}
