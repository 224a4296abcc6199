"""`python -m resurgence_harness.presets > docs/settings.md`."""

from resurgence_harness.presets.describing import settings_page

if __name__ == "__main__":
    print(settings_page(), end="")
