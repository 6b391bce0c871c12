//! `Debug` for types that must not show everything.

/// Implements `Debug` for a type that shows some fields only: the others are secret, private or of no interest.
///
/// ```
/// use arshai::support::opaque_debug;
///
/// struct Account { name: String, password: String }
/// opaque_debug!(Account { name });
///
/// struct Journal { texts: Vec<String> }
/// opaque_debug!(Journal(self) { texts: self.texts.len() });
///
/// let journal = Journal { texts: vec!["private".into()] };
/// assert_eq!(format!("{journal:?}"), "Journal { texts: 1, .. }");
/// let account = Account { name: "ada".into(), password: "secret".into() };
/// assert_eq!(format!("{account:?}"), r#"Account { name: "ada", .. }"#);
/// # let _ = account.password;
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __opaque_debug {
    ($name:ident { $($field:ident),* }) => {
        $crate::support::opaque_debug!($name(self) { $($field: self.$field),* });
    };
    ($name:ident($this:ident) { $($field:ident: $value:expr),* $(,)? }) => {
        impl ::std::fmt::Debug for $name {
            fn fmt(&$this, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), &$value))*
                    .finish_non_exhaustive()
            }
        }
    };
}
