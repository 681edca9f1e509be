//! Settings and their history.

use super::{Meta, Outcome, found, the};
use crate::meta::proto::action::Kind;
use crate::meta::proto::{ResetSetting, SetSetting, Setting, SettingChange};
use crate::meta::query::proto::query::Kind as Query;
use crate::meta::query::proto::{Definition, Everything, Named, SettingFound};
use crate::meta::service::MetaError;

/// The settings of the cluster.
pub struct Settings<'a>(pub(super) &'a Meta);

impl Settings<'_> {
    /// Sets a setting.
    ///
    /// # Errors
    /// See [`MetaError`]; refused, with the range in the message, if it is out of range.
    pub async fn set(&self, name: &str, value: &str) -> Result<Setting, MetaError> {
        let set = SetSetting { name: name.to_owned(), value: value.to_owned() };
        the!(Setting, self.0.one(Kind::SetSetting(set)).await?)
    }

    /// Sets a setting to its default.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn reset(&self, name: &str) -> Result<Setting, MetaError> {
        the!(Setting, self.0.one(Kind::ResetSetting(ResetSetting { name: name.to_owned() })).await?)
    }

    /// A setting as it is in force.
    ///
    /// # Errors
    /// See [`MetaError`]; refused if there is no such setting.
    pub async fn get(&self, name: &str) -> Result<Setting, MetaError> {
        self.describe(name).await.map(|(setting, _)| setting)
    }

    /// A setting as it is in force, and what it means.
    ///
    /// # Errors
    /// See [`MetaError`]; refused if there is no such setting.
    pub async fn describe(&self, name: &str) -> Result<(Setting, Definition), MetaError> {
        let found = found!(Setting, self.0.ask(Query::Setting(Named { name: name.to_owned() })).await?)?;
        Ok((found.setting.unwrap_or_default(), found.definition.unwrap_or_default()))
    }

    /// All settings that this cluster has, by name: what they are, and what they mean.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn list(&self) -> Result<Vec<(Setting, Definition)>, MetaError> {
        let found = found!(Settings, self.0.ask(Query::Settings(Everything {})).await?)?.settings;
        let pair = |found: SettingFound| (found.setting.unwrap_or_default(), found.definition.unwrap_or_default());
        Ok(found.into_iter().map(pair).collect())
    }

    /// Who changed a setting, when and to what: the last 64 times, the oldest first.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn history(&self, name: &str) -> Result<Vec<SettingChange>, MetaError> {
        let asked = Query::SettingHistory(Named { name: name.to_owned() });
        Ok(found!(SettingHistory, self.0.ask(asked).await?)?.changes)
    }
}
