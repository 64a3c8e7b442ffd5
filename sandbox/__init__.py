"""The sandbox: one local server that answers like SendGrid, Twilio and FCM, and shows the post."""
