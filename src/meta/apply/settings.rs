//! Settings: set, reset, and the history of who did what.

use super::{Fault, Step, ensure, refused};
use crate::meta::keys::{self, Cluster};
use crate::meta::limits::{MAX_TEXT_BYTES, SETTING_HISTORY};
use crate::meta::proto::{EventKind, Refusal, Setting, SettingChange};
use crate::meta::settings;
use crate::raftstore::log_store::Table;

impl Step<'_> {
    /// Sets a setting, or resets it to its default. Resetting what nobody has set is no change.
    pub(super) fn set_setting(&mut self, name: &str, value: Option<&str>) -> Result<Setting, Fault> {
        let definition = settings::find(name, self.state.cluster.version);
        let definition =
            definition.ok_or_else(|| refused(Refusal::NoSuchSetting, format!("there is no setting {name:.63?}")))?;
        let is_short = value.is_none_or(|value| value.len() <= MAX_TEXT_BYTES);
        ensure(is_short, Refusal::TooLarge, || format!("a value has {MAX_TEXT_BYTES} bytes at most"))?;
        let number = value.map(|value| definition.parse(value)).transpose();
        let number = number.map_err(|message| refused(Refusal::OutOfRange, message))?;
        let key = Cluster::Setting.key(name.as_bytes());
        let before = self.record::<Setting>(Table::Cluster, &key)?;
        let mut setting = settings::default_setting(definition);
        if value.is_none() && before.as_ref().is_none_or(|before| before.is_default) {
            return Ok(before.unwrap_or(setting));
        }
        setting.changed = self.origin.index;
        setting.changes = before.as_ref().map_or(0, |before| before.changes) + 1;
        if let Some((value, number)) = value.zip(number) {
            (setting.value, setting.number, setting.is_default) = (value.to_owned(), number, false);
        }
        self.put_record(Table::Cluster, key, &setting);
        self.state.settings.set(name, number);
        self.remember(name, setting.changes, value);
        let was = before.map_or_else(|| definition.display(definition.default), |before| before.value);
        let (kind, detail) = match value {
            Some(value) => (EventKind::SettingSet, format!("{was} → {value}")),
            None => (EventKind::SettingReset, format!("{was} → {}", setting.value)),
        };
        self.event(kind, name, detail)?;
        Ok(setting)
    }

    fn remember(&mut self, name: &str, change: u64, value: Option<&str>) {
        let command = self.origin.command;
        let record = SettingChange {
            index: self.origin.index,
            unix_ms: command.unix_ms,
            actor: command.actor.clone(),
            reason: command.reason.clone(),
            value: value.map(str::to_owned),
        };
        self.put_record(Table::Cluster, keys::setting_change(name, change), &record);
        if let Some(forgotten) = change.checked_sub(SETTING_HISTORY).filter(|forgotten| *forgotten > 0) {
            self.view.delete(Table::Cluster, keys::setting_change(name, forgotten));
        }
    }
}
