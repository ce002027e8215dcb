"""The torch side that emulator and real share: pieces of a model, their passes and optimizer steps, and the data.

Nothing here is imported early: `modules` imports torch at its top and is itself imported late, everything else imports
torch inside its functions.
"""
