//! The language and the case of a response.

use langdetect::{DetectorFactory, Seed};

/// Whether a language has a profile to be told by.
pub(super) fn is_known(code: &str) -> bool {
    let known = DetectorFactory::builtin().langlist();
    known.iter().any(|language| language == code)
}

/// Whether the response is in the language. Without a letter to tell it by, it is in all of them: the
/// paper's program has it so.
pub(super) fn is_in(response: &str, code: &str) -> bool {
    // The detector draws random numbers: one seed, so that a response has one verdict.
    let told = DetectorFactory::builtin()
        .create()
        .and_then(|mut detector| {
            detector.seed = Seed::Int(0);
            detector.append(response);
            detector.detect()
        });
    told.map_or(true, |language| language == code)
}

/// Whether the response is English without a small letter.
pub(super) fn english_capital(response: &str) -> bool {
    is_all(response, char::is_uppercase, char::is_lowercase) && is_in(response, "en")
}

/// Whether the response is English without a capital letter.
pub(super) fn english_lowercase(response: &str) -> bool {
    is_all(response, char::is_lowercase, char::is_uppercase) && is_in(response, "en")
}

/// Whether some character is in the case and none is in the other, nor in title case, as `ǅ` is.
fn is_all(text: &str, case: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    let is_title = |c: char| {
        let cased = c.is_uppercase() || c.is_lowercase();
        !cased && c.to_lowercase().next() != Some(c)
    };
    text.chars().any(case) && !text.chars().any(|c| other(c) || is_title(c))
}

/// Whether a word has capital letters and no other ones.
pub(super) fn is_upper(word: &str) -> bool {
    is_all(word, char::is_uppercase, char::is_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sentence in each language that the paper's prompts ask for, and English.
    const SAMPLES: [(&str, &str); 23] = [
        ("ar", "ذهبنا صباح اليوم إلى السوق واشترينا الخبز والفاكهة."),
        (
            "bg",
            "Тази сутрин отидохме на пазара и купихме хляб и плодове.",
        ),
        ("bn", "আজ সকালে আমরা বাজারে গিয়ে রুটি আর ফল কিনেছি।"),
        (
            "de",
            "Heute Morgen sind wir auf den Markt gegangen und haben Brot gekauft.",
        ),
        (
            "en",
            "This morning we went to the market and bought bread and fruit.",
        ),
        ("fa", "امروز صبح به بازار رفتیم و نان و میوه خریدیم."),
        (
            "fi",
            "Tänä aamuna menimme torille ja ostimme leipää ja hedelmiä.",
        ),
        ("gu", "આજે સવારે અમે બજારમાં ગયા અને રોટલી તથા ફળ ખરીદ્યાં."),
        ("hi", "आज सुबह हम बाज़ार गए और हमने रोटी और फल खरीदे।"),
        (
            "it",
            "Questa mattina siamo andati al mercato e abbiamo comprato il pane.",
        ),
        ("kn", "ಇಂದು ಬೆಳಿಗ್ಗೆ ನಾವು ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗಿ ಹಣ್ಣು ಖರೀದಿಸಿದೆವು."),
        ("ko", "오늘 아침에 우리는 시장에 가서 빵과 과일을 샀습니다."),
        ("mr", "आज सकाळी आम्ही बाजारात गेलो आणि भाकरी व फळे विकत घेतली."),
        (
            "ne",
            "हामी बिहान बजार गएका थियौं र त्यहाँ रोटी तथा फलफूल किनेका थियौं।",
        ),
        ("pa", "ਅੱਜ ਸਵੇਰੇ ਅਸੀਂ ਬਾਜ਼ਾਰ ਗਏ ਅਤੇ ਰੋਟੀ ਤੇ ਫਲ ਖਰੀਦੇ।"),
        (
            "pt",
            "Hoje de manhã fomos ao mercado e compramos pão e frutas.",
        ),
        (
            "ru",
            "Сегодня утром мы пошли на рынок и купили хлеб и фрукты.",
        ),
        (
            "sw",
            "Leo asubuhi tulikwenda sokoni kununua mkate, matunda na samaki kwa ajili ya watoto.",
        ),
        ("ta", "இன்று காலை நாங்கள் சந்தைக்குச் சென்று பழங்கள் வாங்கினோம்."),
        ("te", "ఈ రోజు ఉదయం మేము బజారుకు వెళ్లి పండ్లు కొన్నాము."),
        ("th", "เช้านี้พวกเราไปตลาดและซื้อขนมปังกับผลไม้"),
        ("ur", "آج صبح ہم بازار گئے اور روٹی اور پھل خریدے۔"),
        (
            "vi",
            "Sáng nay chúng tôi đã đi chợ và mua bánh mì cùng trái cây.",
        ),
    ];

    #[test]
    fn every_language_is_told_from_the_others() {
        for (code, text) in SAMPLES {
            for (other, _) in SAMPLES {
                assert_eq!(is_in(text, other), code == other, "{code} as {other}");
            }
        }
    }

    #[test]
    fn case_is_seen_without_letters_too() {
        let small = |text| is_all(text, char::is_lowercase, char::is_uppercase);
        assert!(is_upper("2ND") && !is_upper("2") && !is_upper("Ok"));
        assert!(small("ß 1!") && !small("1!") && !small("aB"));
        assert!(!is_upper("Aǅ") && !small("aǅ") && is_upper("中A"));
    }
}
