//! The kinds of content, in addition to text, that a model accepts.

use super::Attachment;

/// Kinds of content that a model's client accepts in addition to text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Modalities {
    /// Images.
    pub images: bool,
    /// Audio.
    pub audio: bool,
    /// Documents, such as PDF files.
    pub files: bool,
}

impl Modalities {
    /// Text and nothing else.
    pub const TEXT: Self = Self { images: false, audio: false, files: false };

    /// Text, images and documents.
    pub const IMAGES_AND_FILES: Self = Self { images: true, audio: false, files: true };

    /// Whether the client accepts this attachment.
    #[must_use]
    pub fn accepts(&self, attachment: &Attachment) -> bool {
        match attachment {
            Attachment::Image { .. } => self.images,
            Attachment::Audio { .. } => self.audio,
            Attachment::File { .. } => self.files,
        }
    }
}
