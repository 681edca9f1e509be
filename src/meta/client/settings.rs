//! Settings and their history.

use super::{Meta, Outcome, the};
use crate::meta::proto::action::Kind;
use crate::meta::proto::{Refusal, Refused, ResetSetting, SetSetting, Setting, SettingChange};
use crate::meta::service::MetaError;
use crate::meta::settings::Definition;
use crate::meta::stored;

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
        let setting = stored::setting(&*self.0.view().await?, name)?;
        setting.ok_or_else(|| no_such(name))
    }

    /// All settings that this cluster has, by name: what they are, and what they mean.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn list(&self) -> Result<Vec<(Setting, &'static Definition)>, MetaError> {
        Ok(stored::settings(&*self.0.view().await?)?)
    }

    /// Who changed a setting, when and to what: the last 64 times, the oldest first.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn history(&self, name: &str) -> Result<Vec<SettingChange>, MetaError> {
        Ok(stored::setting_history(&*self.0.view().await?, name)?)
    }
}

fn no_such(name: &str) -> MetaError {
    let message = format!("there is no setting {name:.63?}");
    MetaError::Refused(Refused { why: Refusal::NoSuchSetting.into(), message, ..Refused::default() })
}
